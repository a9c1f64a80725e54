"""Affine operations without weights: averages, sums, other shapes and orders, and concatenations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine, Size


@dataclass(frozen=True, eq=False)
class Average(Affine):
    """Any average over rectangles: one matrix along the height and one along the width."""

    down: Tensor
    """(new height, height)"""
    across: Tensor
    """(new width, width)"""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, C, new height, new width)"""
        return self.down @ x[0] @ self.across.T

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, C, new height, new width); a divisor in place of the count may be negative."""
        return self.down.abs() @ x[0] @ self.across.T.abs()

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, C, height, width)"""
        return (self.down.T @ a @ self.across,)

    @property
    def terms(self) -> int:
        """Values of the whole plane."""
        return max(self.down.shape) * max(self.across.shape) + 4


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same values in another shape."""

    source: Size
    target: Size

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *target)"""
        return x[0].reshape(-1, *self.target)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *source)"""
        return (a.reshape(-1, *self.source),)

    @property
    def terms(self) -> int:
        """Nothing is computed."""
        return 0


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """The sum or difference of two inputs of equal shape."""

    sign: int
    """Of the second."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] + self.sign * x[1]

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] + x[1]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *inputs), twice"""
        return a, self.sign * a

    @property
    def terms(self) -> int:
        """One sum, and one where the branches split."""
        return 4


@dataclass(frozen=True, eq=False)
class Gather(Affine):
    """Values in another order: some may occur several times, others not at all."""

    source: Size
    index: Tensor
    """(*target) int64: place among the values of an image; their number means the constant."""
    fill: float = 0.0
    """The constant."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *target)"""
        flat = torch.nn.functional.pad(x[0].flatten(1), (0, 1))
        return flat[:, self.index.flatten()].view(-1, *self.index.shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *source)"""
        flat = a.new_zeros(len(a), math.prod(self.source) + 1)
        flat = flat.index_add(1, self.index.flatten(), a.flatten(1))
        return (flat[:, :-1].reshape(-1, *self.source),)

    @property
    def offset(self) -> Tensor | None:
        """The constant, at its places."""
        constant = self.index == math.prod(self.source)
        return torch.where(constant, self.fill, 0.0) if self.fill else None

    @property
    def once(self) -> bool:
        """Whether no value occurs twice."""
        kept = self.index[self.index < math.prod(self.source)]
        return len(kept) == len(kept.unique())

    @property
    def terms(self) -> int:
        """As many sums as a value occurs, or branches split."""
        return 2 + int(torch.bincount(self.index.flatten())[: math.prod(self.source)].max())

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """See `Affine`; places stay whole numbers."""
        return replace(self, index=self.index.to(device))


@dataclass(frozen=True, eq=False)
class Total(Affine):
    """Sums over some dimensions, which become 1."""

    source: Size
    over: Size
    """Dimensions, counted with that of the batch."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, ...)"""
        return x[0].sum(self.over, keepdim=True)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *source)"""
        return (a.expand(-1, *self.source),)

    @property
    def terms(self) -> int:
        """The values under a sum."""
        return math.prod(self.source[d - 1] for d in self.over) + 2


@dataclass(frozen=True, eq=False)
class Concatenation(Affine):
    """A concatenation along the first dimension of an image's values."""

    parts: Size
    """Length of each input in that dimension."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, sum of parts, ...)"""
        return torch.cat(x, 1)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, part, ...) for each"""
        return tuple(torch.split(a, list(self.parts), 1))

    @property
    def terms(self) -> int:
        """One sum where the branches split."""
        return 2
