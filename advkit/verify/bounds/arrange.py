"""Affine operations without weights: averages, sums, reshaping, slices and concatenations."""

from __future__ import annotations

from dataclasses import dataclass

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
class Slice(Affine):
    """A part along the first dimension of an image's values."""

    source: Size
    first: int
    length: int

    def linear(self, *x: Tensor) -> Tensor:
        """(N, length, ...)"""
        return x[0][:, self.first : self.first + self.length]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *source)"""
        shape = (len(a), *self.source[1:])
        before = a.new_zeros(shape[0], self.first, *shape[1:])
        behind = a.new_zeros(shape[0], self.source[0] - self.first - self.length, *shape[1:])
        return (torch.cat([before, a, behind], 1),)

    @property
    def terms(self) -> int:
        """One sum where the branches split."""
        return 2


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
