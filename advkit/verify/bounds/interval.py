"""Interval bound propagation (Gowal et al., 2018).

Nothing is changed in place, so gradients reach the bounds of the box and the network's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine
from advkit.verify.bounds.curves import Curve
from advkit.verify.bounds.graph import Graph, Node


def ends(node: Node, lower: Sequence[Tensor], upper: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(N, *shape) lower and upper bounds of one node, from those of its inputs."""
    op = node.op
    assert op is not None
    if isinstance(op, Curve):
        return op.between(lower[0], upper[0])
    if not isinstance(op, Affine):
        return op.apply(lower[0]), op.apply(upper[0])
    middle = op.apply(*((low + high) / 2 for low, high in zip(lower, upper, strict=True)))
    radius = op.absolute(*((high - low) / 2 for low, high in zip(lower, upper, strict=True)))
    return middle - radius, middle + radius


def interval_bounds(graph: Graph, lower: Tensor, upper: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Lower and upper bounds of every node, the logits' last; differentiable, and not widened for rounding.

    Args:
        graph: the network.
        lower: (N, C, H, W) images.
        upper: (N, C, H, W) images, at least ``lower`` everywhere.
    """
    lows, highs = [lower], [upper]
    for node in graph.nodes[1:]:
        low, high = ends(node, [lows[i] for i in node.inputs], [highs[i] for i in node.inputs])
        lows.append(low)
        highs.append(high)
    return lows, highs


def margins_at_last(graph: Graph, lower: Sequence[Tensor], upper: Sequence[Tensor], label: Tensor) -> Tensor:
    """(N, K) lower bounds of the true logit minus each logit, 0 for the true one, from the bounds of the last
    operation's inputs. The last operation must be affine: bounds of differences through it are tighter than
    differences of bounds. Cross-entropy on their negatives is a certified loss."""
    last = graph.nodes[-1]
    op = last.op
    assert isinstance(op, Affine)
    n, classes = len(label), graph.classes
    own = torch.nn.functional.one_hot(label, classes).to(lower[0].dtype)
    rows = (own[:, None] - torch.eye(classes, dtype=own.dtype, device=own.device)).flatten(0, 1)
    least = rows.new_zeros(n, classes)
    if op.offset is not None:
        least = least + (rows * op.offset).sum(1).view(n, classes)
    for place, a in zip(last.inputs, op.transpose(rows), strict=True):
        a = a.view(n, classes, *a.shape[1:])
        middle, radius = (lower[place] + upper[place]) / 2, (upper[place] - lower[place]) / 2
        least = least + (a * middle[:, None] - a.abs() * radius[:, None]).flatten(2).sum(2)
    return least
