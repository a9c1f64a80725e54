"""Sigmoid and tanh, and their linear lower and upper bounds on a box.

A line of any slope is a lower bound once it is moved down to where the function comes nearest to it: at an
end of the interval, or where the function has that slope. So the choice of the slope decides how tight a
bound is, and not whether it is one. The slope is that of the best bound at the middle of the interval: the
chord where the function is concave, the tangent at the middle where it is convex, else one of these, or the
tangent through the upper end.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

SLACK = 1e-12
"""Error of values of the functions in float64, of sums with them, and of points of a given slope: the values
are right to 1e-15, and near such a point the distance of line and function is flat."""
FLOAT32 = 2.0**-21
"""Error of a float32 sigmoid or tanh: eight times the rounding of a value near 1."""
HALVINGS = 40
"""Of the interval in which a slope is searched."""


@dataclass(frozen=True)
class Band:
    """A line below and a line above a function."""

    lower: Tensor
    """(N, *shape) slope of the line below."""
    low: Tensor
    """(N, *shape) its value at 0."""
    upper: Tensor
    """(N, *shape) slope of the line above."""
    high: Tensor
    """(N, *shape) its value at 0."""

    def back(self, a: Tensor, index: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Relaxation`."""
        negative = a.clamp(max=0)
        positive = a - negative
        constant = positive * self.low[index] + negative * self.high[index]
        through = positive * self.lower[index] + negative * self.upper[index]
        return through, constant.flatten(1).sum(1, dtype=torch.float64)

    def reach(self, size: Tensor) -> Tensor:
        """See `Relaxation`."""
        return torch.maximum(self.lower, self.upper) * size + torch.maximum(self.low.abs(), self.high.abs())

    def to(self, dtype: torch.dtype) -> Band:
        """See `Relaxation`."""
        return Band(*(getattr(self, field.name).to(dtype) for field in fields(self)))


@dataclass(frozen=True)
class Curve:
    """Sigmoid or tanh. Both rise, are convex below 0 and concave above, and f(z) + f(-z) does not change."""

    kind: Literal["sigmoid", "tanh"]

    def apply(self, z: Tensor) -> Tensor:
        """(N, *shape)"""
        return z.sigmoid() if self.kind == "sigmoid" else z.tanh()

    def between(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """(N, *shape) ends of the values of inputs between two, widened for rounding in float64."""
        least = 0.0 if self.kind == "sigmoid" else -1.0
        low, high = self.apply(lower) - SLACK, self.apply(upper) + SLACK
        return low.clamp(min=least), high.clamp(max=1)

    def open(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(N, *shape) bool: inputs for which tighter bounds would help."""
        return lower < upper

    def slope(self, z: Tensor) -> Tensor:
        """(N, *shape) of the function."""
        value = self.apply(z)
        return value * (1 - value) if self.kind == "sigmoid" else (1 - value) * (1 + value)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """(N, *shape) the least and the largest slope between two inputs, widened for rounding in float64."""
        nearest = torch.zeros_like(lower).clamp(lower, upper)
        least = torch.minimum(self.slope(lower), self.slope(upper)) - SLACK
        return least.clamp(min=0), self.slope(nearest) + SLACK

    def relaxed(self, lower: Tensor, upper: Tensor) -> Band:
        """The lines of inputs between ``lower`` and ``upper`` (N, *shape)."""
        below, low = self._below(lower, upper)
        above, high = self._below(-upper, -lower)
        return Band(below, low, above, (1.0 if self.kind == "sigmoid" else 0.0) - high)

    def _below(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and values at 0 of lines below the function."""
        with torch.no_grad():
            middle = (lower + upper) / 2
            least, most = torch.zeros_like(lower), torch.full_like(lower, self._steepest)
            for _ in range(HALVINGS):  # a steeper line is higher at the middle if it touches left of it
                slope = (least + most) / 2
                left = self._touching(slope, lower, upper)[0] < middle
                least, most = torch.where(left, slope, least), torch.where(left, most, slope)
        height = self._touching(least, lower, upper)[1]
        return least, height - SLACK * (1 + least * torch.maximum(lower.abs(), upper.abs()))

    def _touching(self, slope: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Where the function comes nearest to a line of this slope from above, and how far it is from the
        parallel through the origin there."""
        flat = self._where(slope)
        points = torch.stack([lower, flat.clamp(lower, upper), (-flat).clamp(lower, upper), upper])
        height, place = (self.apply(points) - slope * points).min(0)
        return points.gather(0, place[None])[0], height

    @property
    def _steepest(self) -> float:
        return 0.25 if self.kind == "sigmoid" else 1.0

    def _where(self, slope: Tensor) -> Tensor:
        """(N, *shape) the input of at most 0 at which the function has a slope: s (1 - s) is that of the
        sigmoid where it is s, and tanh z is 2 sigmoid(2 z) - 1."""
        share = slope / self._steepest / 4
        value = 2 * share / (1 + (1 - 4 * share).clamp(min=0).sqrt())
        where = torch.log(value) - torch.log1p(-value)
        return where if self.kind == "sigmoid" else where / 2
