"""Bounds of rounding errors, so that certificates hold for computed numbers.

A sum of n floating-point products, in any order, with or without fused operations, has an error of at most
gamma(n) = n u / (1 - n u) times the sum of their absolute values (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1); u is 2^-53 in float64 and 2^-24 in float32. This is used twice.

*For the bounds.* A bound is a sum over all paths through the graph. `Bounds.reach` is the sum of their
absolute values, so gamma of all roundings on a path, times it, bounds the error; every bound is widened by 4
times as much.

*For the model.* `Float32` bounds the rounding errors of the network's own float32 pass: what each layer adds
to values within the bounds, and what the layers behind make of that in the lead of the true logit. An image
counts as certified only if its margin exceeds this.

Values that may overflow in float32 have an infinite error, and every product and sum may be flushed to 0.
Assumption: float32 is not replaced by a lower precision (TF32, bfloat16, Winograd's convolutions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from advkit.verify.bounds.affine import Affine
from advkit.verify.bounds.curves import FLOAT32, Curve
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.relaxation import MaxPool, Relu
from advkit.verify.bounds.window import reach_images, windowed_path

LARGEST = torch.finfo(torch.float32).max / 2**16
"""Size of the sum of all terms' absolute values up to which nothing overflows, nor do sums that are divided
later, as in poolings."""
FLUSHED = torch.finfo(torch.float32).tiny
"""Error of a result that is too small for float32: it is rounded to less than this, or to 0."""


@overload
def gamma(n: int, dtype: torch.dtype) -> float: ...
@overload
def gamma(n: int | Tensor, dtype: torch.dtype) -> float | Tensor: ...
def gamma(n: int | Tensor, dtype: torch.dtype) -> float | Tensor:
    """Relative error of a sum of ``n`` terms, or of each such number."""
    unit = n * torch.finfo(dtype).eps / 2
    if isinstance(unit, Tensor):
        return torch.where(unit < 1, unit / (1 - unit), math.inf)
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
    return Float32(graph, lower, upper).errors[-1]


class Float32:
    """Rounding errors of a float32 pass, anywhere between the bounds.

    An error before a ReLU whose sign is known is handed on with its slope, and so with a sign: errors of
    several paths cancel as the values do. Where the sign is open, an error e is handed on as (1 + slope) / 2
    times e, give or take (1 - slope) / 2 times its bound: a linear relaxation, as of the values themselves.

    Args:
        graph: the network, in float64.
        lower: bounds of all nodes, each (N, *shape).
        upper: bounds of all nodes, each (N, *shape).
        parts: divides a number of rows into batches, for `of` at hidden values whose sign is open; None:
            their errors are bounded by absolute values, layer by layer.
    """

    def __init__(
        self,
        graph: Graph,
        lower: Sequence[Tensor],
        upper: Sequence[Tensor],
        parts: Callable[[int, torch.dtype], Iterator[slice]] | None = None,
    ) -> None:
        self.graph, self.lower, self.upper = graph, lower, upper
        self.errors = [torch.zeros_like(lower[0])]
        """Each (N, *shape): of a node's values."""
        self.own = [torch.zeros_like(lower[0])]
        """Each (N, *shape): what the node itself adds."""
        self.plain = [torch.zeros_like(lower[0])]
        """Each (N, *shape): as ``errors``, by absolute values alone."""
        read = {node.inputs[0] for node in graph.nodes if isinstance(node.op, Relu) and all(node.op.cut)}
        for k, node in enumerate(graph.nodes[1:], 1):
            self.own.append(self._own(k))
            self.plain.append(self._handed(k, self.plain) + self.own[k])
            self.errors.append(self._handed(k, self.errors) + self.own[k])
            if parts is not None and k in read and isinstance(node.op, Affine):
                self._refine(k, parts)

    def of(self, start: int, a: Tensor, index: Tensor) -> Tensor:
        """(R,) bounds of the errors of linear functions of a node.

        Args:
            start: the node.
            a: (R, *shape) coefficients.
            index: (R,) image of each row.
        """
        spread = 4 * (start + 1) * gamma(roundings(self.graph, start, torch.float64), torch.float64)
        total, pending = spread * _times(a, self.plain[start][index]), {start: a}
        for k in range(start, 0, -1):
            if k not in pending:
                continue
            node, a = self.graph.nodes[k], pending.pop(k)
            if node.also is not None or isinstance(node.op, MaxPool):
                total = total + _times(a, self.errors[k][index])
                continue
            total = total + _times(a, self.own[k][index])
            if isinstance(node.op, Affine):
                parts = node.op.transpose(a)
            else:
                assert isinstance(node.op, Relu | Curve)
                middle, wide = self._slopes(node.op, node.inputs[0])
                total = total + _times(a, (wide * self.errors[node.inputs[0]])[index])
                parts = (a * middle[index],)
            for place, part in zip(node.inputs, parts, strict=True):
                pending[place] = pending[place] + part if place in pending else part
        return total

    def _own(self, k: int) -> Tensor:
        node = self.graph.nodes[k]
        if isinstance(node.op, Affine) and node.also is None:  # of a pooling, the model only compares
            sizes = [_size(self.lower[i], self.upper[i]) + self.errors[i] for i in node.inputs]
            count, size = node.op.roundings(*sizes), node.op.size(*sizes)
            error = gamma(count, torch.float32) * size + (size > 0) * count * FLUSHED
            return torch.where(size <= LARGEST, error, math.inf)
        if isinstance(node.op, Relu) and node.op.slope:
            size = _size(self.lower[k], self.upper[k]) + self.errors[node.inputs[0]]
            return gamma(2, torch.float32) * size
        return torch.full_like(self.lower[k], FLOAT32 if isinstance(node.op, Curve) else 0.0)

    def _handed(self, k: int, errors: Sequence[Tensor]) -> Tensor:
        """What a node makes of errors before, by absolute values."""
        node = self.graph.nodes[k]
        if node.also is not None:
            return node.also[0].apply(errors[node.also[1]])
        before = [errors[i] for i in node.inputs]
        if isinstance(node.op, Affine):
            return node.op.absolute(*before)
        if isinstance(node.op, MaxPool):
            return node.op.apply(before[0])
        assert isinstance(node.op, Relu | Curve)
        middle, wide = self._slopes(node.op, node.inputs[0])
        return (middle + wide) * before[0]

    def _slopes(self, op: Relu | Curve, place: int) -> tuple[Tensor, Tensor]:
        """(N, *shape) middles and half widths of the slopes between exact and computed values."""
        low, high = self.lower[place] - self.errors[place], self.upper[place] + self.errors[place]
        least, most = op.slopes(low, high)
        return (least + most) / 2, (most - least) / 2

    def _refine(self, k: int, parts: Callable[[int, torch.dtype], Iterator[slice]]) -> None:
        """Errors of the values of a node whose sign is open, by rows."""
        if reach_images(self.graph, windowed_path(self.graph, k)):
            return  # there are many, a few layers from the images
        error = self.errors[k]
        unsure = (self.lower[k] - error < 0) & (self.upper[k] + error > 0)
        flat, (image, neuron) = error.flatten(1).clone(), unsure.flatten(1).nonzero(as_tuple=True)
        for part in parts(len(image), error.dtype):
            a = one_hot(neuron[part], flat.shape[1]).to(error.dtype).view(-1, *error.shape[1:])
            found = self.of(k, a, image[part])
            flat[image[part], neuron[part]] = torch.minimum(flat[image[part], neuron[part]], found)
        self.errors[k] = flat.view_as(error)


def _times(a: Tensor, error: Tensor) -> Tensor:
    """(R,)"""
    return (a.abs() * error).flatten(1).sum(1)


def _size(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(lower.abs(), upper.abs())
