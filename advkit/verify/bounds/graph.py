"""A network as a list of operations in topological order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine, Elementwise, Size
from advkit.verify.bounds.arrange import Concatenation, Gather, Reshape, Sum
from advkit.verify.bounds.curves import Curve
from advkit.verify.bounds.relaxation import MaxPool, Relu

Nonlinear = Relu | MaxPool | Curve


@dataclass(frozen=True)
class Node:
    """One operation."""

    name: str
    """The qualified name of the layer, or of the function with the layer that calls it."""
    op: Affine | Nonlinear | None
    """None: the images themselves."""
    inputs: tuple[int, ...]
    """Indices of its input nodes."""
    shape: Size
    """Of its values for one image."""
    also: tuple[MaxPool, int] | None = None
    """A max pooling and the node it is of, whose values these are, computed in another way."""


@dataclass(frozen=True)
class Graph:
    """From images, the first node, to logits, the last one.

    ``forward`` is the function that is bounded: exact arithmetic with the network's float32 weights, up to
    the rounding of the precision that it is computed in.
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
        """Number of logits."""
        return self.nodes[-1].shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits of images (N, C, H, W) in [0, 1]."""
        values = [x]
        for node in self.nodes[1:]:
            assert node.op is not None
            values.append(node.op.apply(*(values[i] for i in node.inputs)))
        return values[-1]

    def to(self, device: torch.device, dtype: torch.dtype) -> Graph:
        """A copy without gradients on another device, or in another precision."""
        moved = (
            replace(node, op=node.op.to(device, dtype)) if isinstance(node.op, Affine) else node
            for node in self.nodes
        )
        return Graph(tuple(moved))

    def nonlinear(self) -> Iterator[int]:
        """Indices of operations that are not affine."""
        return (k for k, node in enumerate(self.nodes) if isinstance(node.op, Nonlinear))

    def open(self, place: int, lower: Tensor, upper: Tensor) -> Tensor:
        """(N, *shape) bool: values of a node for which tighter bounds would help what is not affine and
        reads it, or reads a ReLU of it."""
        found = torch.zeros_like(lower, dtype=torch.bool)
        for k, node in enumerate(self.nodes):
            if place in node.inputs and isinstance(node.op, Nonlinear):
                found |= node.op.open(lower, upper)
                if isinstance(node.op, Relu):
                    found |= self.open(k, node.op.apply(lower), node.op.apply(upper))
        return found

    def exact_on_boxes(self) -> frozenset[int]:
        """Nodes whose interval bounds are exact on a box.

        If every value of a node depends on one value of its input, they are exact if the input's are. If it
        depends on several, they are exact if these share no pixel, so that all can be extreme at once.
        """
        exact, apart = {0}, {0}
        for k, node in enumerate(self.nodes[1:], 1):
            if isinstance(node.op, Sum | Concatenation):
                continue
            single = isinstance(node.op, Elementwise | Reshape | Gather | Relu | Curve)
            before = node.inputs[0] if node.also is None else node.also[1]
            if before in apart or (single and before in exact):
                exact.add(k)
            if single and before in apart and (not isinstance(node.op, Gather) or node.op.once):
                apart.add(k)
        return frozenset(exact)
