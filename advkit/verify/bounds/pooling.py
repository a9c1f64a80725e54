"""Max pooling as a tournament of ReLUs: the larger of a and b is b + relu(a - b).

Bounds of differences are tighter than those of what is compared, and their signs can be split. A pooling that
would take too many of them, or whose windows overlap an edge where values may be negative, stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from advkit.verify.bounds.affine import Convolution, Size
from advkit.verify.bounds.graph import Graph, Node
from advkit.verify.bounds.relaxation import MaxPool, Relu

LARGEST = 16
"""Values under a window up to which a pooling becomes a tournament."""


def unpooled(graph: Graph) -> Graph:
    """The same function, with its max poolings as convolutions and ReLUs where that can be done."""
    nodes: list[Node] = []
    place: list[int] = []
    for node in graph.nodes:
        moved = replace(node, inputs=tuple(place[i] for i in node.inputs))
        if isinstance(node.op, MaxPool) and _fits(node, graph.nodes[node.inputs[0]]):
            nodes += _tournament(moved, node.op, nodes[moved.inputs[0]].shape, len(nodes))
        else:
            nodes.append(moved)
        place.append(len(nodes) - 1)
    return Graph(tuple(nodes))


def _fits(node: Node, before: Node) -> bool:
    op = node.op
    assert isinstance(op, MaxPool)
    spans = [op.dilation[i] * (op.kernel[i] - 1) + 1 for i in (0, 1)]
    whole = [
        (before.shape[1 + i] + 2 * op.padding[i] - spans[i]) // op.stride[i] + 1 == node.shape[1 + i]
        for i in (0, 1)
    ]
    padded = op.padding != (0, 0) and before.op != Relu()  # a zero beside values >= 0 changes no maximum
    return 1 < math.prod(op.kernel) <= LARGEST and all(whole) and not padded


def _tournament(node: Node, op: MaxPool, source: Size, first: int) -> Iterator[Node]:
    """The nodes, from number ``first`` on, that compute the pooling ``node`` of values shaped ``source``."""
    (origin,), channels, count = node.inputs, source[0], math.prod(op.kernel)
    before, geometry = origin, (op.stride, op.padding, op.dilation)
    values = torch.eye(count).view(count, 1, *op.kernel)  # in terms of those before: which take part
    while count > 1:
        pairs, cut = torch.eye(count), (True, False) * (count // 2) + (False,) * (count % 2)
        pairs[range(0, count - 1, 2), range(1, count, 2)] = -1
        compared = torch.einsum("ij,jkhw->ikhw", pairs, values).repeat(channels, 1, 1, 1)
        shape = (channels * count, *node.shape[1:])
        yield Node(node.name, Convolution(compared, None, source, *geometry, channels), (before,), shape)
        yield Node(node.name, Relu(cut=cut), (first,), shape)
        before, first, source, geometry = first + 1, first + 2, shape, ((1, 1), (0, 0), (1, 1))
        values = torch.eye(count).split(2)
        values = torch.stack([pair.sum(0) for pair in values]).view(-1, count, 1, 1)
        count = len(values)
    layer = Convolution(values.repeat(channels, 1, 1, 1), None, source, *geometry, channels)
    yield replace(node, op=layer, inputs=(before,), also=(op, origin))
