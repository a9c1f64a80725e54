"""A network as a list of operations, each after those that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine, Elementwise, Size
from advkit.verify.bounds.arrange import Concatenation, Reshape, Slice, Sum
from advkit.verify.bounds.relaxation import MaxPool, Relu


@dataclass(frozen=True)
class Node:
    """One operation."""

    name: str
    """The qualified name of the layer, or of the function with the layer that calls it."""
    op: Affine | Relu | MaxPool | None
    """None: the images themselves."""
    inputs: tuple[int, ...]
    """Places of the nodes that it reads."""
    shape: Size
    """Of its values for one image."""


@dataclass(frozen=True)
class Graph:
    """Images, the first node, to logits, the last one.

    ``forward`` is the function that is bounded: exact arithmetic of the network's own float32 weights, up to
    the rounding of the arithmetic that it is computed in.
    """

    nodes: tuple[Node, ...]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def body(self) -> Graph:
        """Everything before the last operation."""
        return Graph(self.nodes[:-1])

    @property
    def classes(self) -> int:
        """Logits."""
        return self.nodes[-1].shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits of images (N, C, H, W) in [0, 1]."""
        values = [x]
        for node in self.nodes[1:]:
            assert node.op is not None
            values.append(node.op.apply(*(values[i] for i in node.inputs)))
        return values[-1]

    def to(self, device: torch.device, dtype: torch.dtype) -> Graph:
        """A frozen copy elsewhere, or in another arithmetic."""
        moved = (
            replace(node, op=node.op.to(device, dtype)) if isinstance(node.op, Affine) else node
            for node in self.nodes
        )
        return Graph(tuple(moved))

    def nonlinear(self) -> Iterator[int]:
        """Places of ReLUs and max poolings."""
        return (k for k, node in enumerate(self.nodes) if isinstance(node.op, Relu | MaxPool))

    def readers(self, place: int) -> list[Relu | MaxPool]:
        """The ReLUs and max poolings that read a node."""
        return [
            node.op for node in self.nodes if place in node.inputs and isinstance(node.op, Relu | MaxPool)
        ]

    def exact_on_boxes(self) -> frozenset[int]:
        """Nodes whose interval bounds are the true ends on a box.

        Those of a value that is computed of one value before are, if that one's are. Those of a value that is
        computed of several are where these share no pixel, so that all can be at an end together.
        """
        exact, apart = {0}, {0}
        for k, node in enumerate(self.nodes[1:], 1):
            if isinstance(node.op, Sum | Concatenation):
                continue
            single, before = isinstance(node.op, Elementwise | Reshape | Slice | Relu), node.inputs[0]
            if before in apart or (single and before in exact):
                exact.add(k)
            if single and before in apart:
                apart.add(k)
        return frozenset(exact)
