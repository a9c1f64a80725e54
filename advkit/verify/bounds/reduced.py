"""A network on the ball around one image, as matrices between the inputs of ReLUs whose sign is open there.

Where signs are known a ReLU is affine, and so is everything between two open ones. After certified training
few are open, and a pass costs a small part of what it costs in the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Convolution, Dense
from advkit.verify.bounds.arrange import Concatenation, Reshape
from advkit.verify.bounds.graph import Graph, Node
from advkit.verify.bounds.linear import Bounds, carried
from advkit.verify.bounds.relaxation import Lines, Relaxation, Relu


def products(graph: Graph) -> int:
    """Products of numbers in a pass of one image, through linear layers and convolutions."""
    found = 0
    for node in graph.nodes:
        if isinstance(node.op, Dense | Convolution):
            found += node.op.weight.numel() * math.prod(node.shape[1:])
    return found


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
        opened: by index of a ReLU, in order, (*shape) bool: the inputs whose sign is open on the ball. Those
            of others are known.
        rows: number of linear functions that are followed back together.
    """
    known: dict[int, Relaxation] = {}
    for k, lines in bounds.relaxed.items():
        assert isinstance(lines, Lines)
        factor = lines.lower[image][None]
        if k in opened:  # followed no further: the coefficients are kept
            factor = factor.masked_fill(opened[k], 0)
        known[k] = Lines(factor, factor, torch.zeros_like(factor))
    device = bounds.ball.x.device

    def dense(place: int, which: Tensor, before: Sequence[int]) -> Dense:
        """The values ``which`` (M,) of a node, as a function of the pixels and of the ReLUs ``before`` it."""
        weights, biases, shape = [], [], graph.nodes[place].shape
        for some in which.split(rows):
            count = len(some)
            a = torch.zeros(count, math.prod(shape), dtype=torch.float64, device=device)
            a[torch.arange(count, device=device), some] = 1
            kept: dict[int, Tensor] = {}
            ends = a.view(-1, *shape), torch.zeros_like(some)
            linear, total = carried(graph, known, place, *ends, kept=kept)
            parts = [linear.flatten(1)]
            for k in before:
                parts.append(kept[k][:, opened[k]] if k in kept else a.new_zeros(count, int(opened[k].sum())))
            weights.append(torch.cat(parts, 1))
            biases.append(total)
        return Dense(torch.cat(weights), torch.cat(biases))

    shape = graph.nodes[0].shape
    size, relus = math.prod(shape), list[int]()
    nodes = [Node("images", None, (), shape), Node("pixels", Reshape(shape, (size,)), (0,), (size,))]
    for k, places in opened.items():
        which = places.flatten().nonzero()[:, 0]
        if len(which):
            op, last, count = graph.nodes[k].op, len(nodes) - 1, len(which)
            assert isinstance(op, Relu)
            inputs = dense(graph.nodes[k].inputs[0], which, relus)
            nodes += [
                Node(f"inputs of {k}", inputs, (last,), (count,)),
                Node(f"open {k}", Relu(op.slope), (last + 1,), (count,)),
                Node(f"up to {k}", Concatenation((size, count)), (last, last + 2), (size + count,)),
            ]
            size += count
            relus.append(k)
    logits = dense(len(graph) - 1, torch.arange(graph.classes, device=device), relus)
    nodes.append(Node("logits", logits, (len(nodes) - 1,), (graph.classes,)))
    return Graph(tuple(nodes))
