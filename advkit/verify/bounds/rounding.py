"""Bounds of rounding errors, so that certificates hold for computed numbers.

A sum of n floating-point products, in any order, with or without fused operations, has an error of at most
gamma(n) = n u / (1 - n u) times the sum of their absolute values (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1); u is 2^-53 in float64 and 2^-24 in float32. This is used twice.

*For the bounds.* A bound is a sum over all paths through the graph. `Bounds.reach` is the sum of their
absolute values, so gamma of all roundings on a path, times it, bounds the error; every bound is widened by 4
times as much.

*For the model.* `float32_error` propagates the rounding error of the network's own float32 pass from layer to
layer. An image counts as certified only if its margin exceeds the errors of both logits.

Assumptions: float32 is not replaced by a lower precision (TF32, bfloat16, Winograd's convolutions), and
nothing overflows or underflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.relaxation import MaxPool, Relu


def gamma(n: int, dtype: torch.dtype) -> float:
    """Relative error of a sum of ``n`` terms."""
    unit = n * torch.finfo(dtype).eps / 2
    return unit / (1 - unit) if unit < 1 else math.inf


def roundings(graph: Graph, last: int, dtype: torch.dtype) -> int:
    """Largest number of roundings on a path from the node ``last`` to the images.

    Constants are always summed in float64: for rows in float32 that counts as one more rounding.
    """
    nodes = graph.nodes[: last + 1]
    count = sum(node.op.terms for node in nodes if isinstance(node.op, Affine)) + 8 * len(nodes)
    return count if dtype == torch.float32 else count + sum(math.prod(node.shape) for node in nodes)


def float32_error(graph: Graph, lower: Sequence[Tensor], upper: Sequence[Tensor]) -> Tensor:
    """(N, K) bound of the rounding error of the logits of a float32 pass, anywhere between the bounds.

    Args:
        graph: the network, in float64.
        lower: bounds of all nodes, each (N, *shape).
        upper: bounds of all nodes, each (N, *shape).
    """
    errors = [torch.zeros_like(lower[0])]
    for k, node in enumerate(graph.nodes[1:], 1):
        op, before = node.op, [errors[i] for i in node.inputs]
        if node.also is not None:  # the model compares, which is exact
            pool, i = node.also
            errors.append(pool.apply(errors[i]))
        elif isinstance(op, Affine):
            computed = [_size(lower[i], upper[i]) + errors[i] for i in node.inputs]
            errors.append(op.absolute(*before) + gamma(op.terms, torch.float32) * op.size(*computed))
        elif isinstance(op, Relu) and not op.slope:
            silent = upper[node.inputs[0]] + before[0] <= 0
            errors.append(torch.where(silent, 0.0, before[0]))
        elif isinstance(op, Relu):
            errors.append(before[0] + gamma(2, torch.float32) * (_size(lower[k], upper[k]) + before[0]))
        else:
            assert isinstance(op, MaxPool)
            errors.append(op.apply(before[0]))
    return errors[-1]


def _size(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(lower.abs(), upper.abs())
