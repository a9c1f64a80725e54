"""A network on the ball around one image, as matrices between the inputs of ReLUs whose sign is open there.

Where signs are known a ReLU is affine, and so is everything between two open ones. After certified training
few are open, and a pass costs a small part of what it costs in the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from advkit.verify.bounds.affine import Dense
from advkit.verify.bounds.arrange import Concatenation, Reshape
from advkit.verify.bounds.graph import Graph, Node
from advkit.verify.bounds.linear import Bounds, carried
from advkit.verify.bounds.relaxation import Lines, Relaxation, Relu


@dataclass(frozen=True)
class Known:
    """A ReLU where its sign is known. Open ones are followed no further: their coefficients are kept."""

    factor: Tensor
    """(1, *shape) its slope, and 0 where it is open."""

    def back(self, a: Tensor, index: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Relaxation`."""
        return a * self.factor, torch.zeros(len(a), dtype=torch.float64, device=a.device)

    def reach(self, size: Tensor) -> Tensor:
        """See `Relaxation`."""
        return self.factor * size

    def to(self, dtype: torch.dtype) -> Known:
        """See `Relaxation`."""
        return Known(self.factor.to(dtype))


def products(graph: Graph, like: Tensor) -> int:
    """Products of numbers in a pass of one image; ``like`` has the precision and the device."""
    with FlopCounterMode(display=False) as counter:
        graph.forward(like.new_zeros(1, *graph.nodes[0].shape))
    return int(counter.get_total_flops()) // 2


def products_reduced(graph: Graph, opened: Mapping[int, Tensor]) -> int:
    """The same of what `reduced` would give."""
    before, found = math.prod(graph.nodes[0].shape), 0
    for count in (*(int(places.sum()) for places in opened.values()), graph.classes):
        found, before = found + before * count, before + count
    return found


def reduced(graph: Graph, bounds: Bounds, image: int, opened: Mapping[int, Tensor], rows: int) -> Graph:
    """The network on the ball of one image, up to rounding. Its ReLUs are of vectors: the open inputs of
    those of the network that have any, in the same order.

    Args:
        graph: in float64; what is not affine is a ReLU.
        bounds: of all nodes, in float64.
        image: the one of those that are bounded.
        opened: by index of every ReLU, (\\*shape) bool: the inputs whose sign is open on the ball.
        rows: number of linear functions that are followed back together.
    """
    known: dict[int, Relaxation] = {}
    for k, places in opened.items():
        lines = bounds.relaxed[k]
        assert isinstance(lines, Lines)
        known[k] = Known(lines.lower[image].masked_fill(places, 0)[None])
    device = bounds.ball.x.device

    def dense(place: int, which: Tensor) -> Dense:
        """The values ``which`` (M,) of a node, as a function of the pixels and of open ReLUs before it."""
        weights, biases = [], []
        for some in which.split(rows):
            a = torch.zeros(
                len(some), math.prod(graph.nodes[place].shape), dtype=torch.float64, device=device
            )
            a[torch.arange(len(some), device=device), some] = 1
            kept: dict[int, Tensor] = {}
            a = a.view(-1, *graph.nodes[place].shape)
            linear, total = carried(graph, known, place, a, torch.zeros_like(some), kept=kept)
            parts = [linear.flatten(1)]
            for k, places in opened.items():
                if k <= place:
                    coefficients = kept.get(k, torch.zeros(len(some), *places.shape, device=device))
                    parts.append(coefficients[:, places])
            weights.append(torch.cat(parts, 1))
            biases.append(total)
        return Dense(torch.cat(weights), torch.cat(biases))

    shape = graph.nodes[0].shape
    size = math.prod(shape)
    nodes = [Node("images", None, (), shape), Node("pixels", Reshape(shape, (size,)), (0,), (size,))]
    for k, places in opened.items():
        which = places.flatten().nonzero()[:, 0]
        if len(which):
            op, before, count = graph.nodes[k].op, len(nodes) - 1, len(which)
            assert isinstance(op, Relu)
            size = nodes[before].shape[0] + count
            joined = Concatenation((size - count, count))
            nodes += [
                Node(f"inputs of {k}", dense(graph.nodes[k].inputs[0], which), (before,), (count,)),
                Node(f"open {k}", Relu(op.slope), (before + 1,), (count,)),
                Node(f"up to {k}", joined, (before, before + 2), (size,)),
            ]
    last = dense(len(graph) - 1, torch.arange(graph.classes, device=device))
    nodes.append(Node("logits", last, (len(nodes) - 1,), (graph.classes,)))
    return Graph(tuple(nodes))
