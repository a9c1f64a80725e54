"""The ball of a threat model inside [0, 1], around each image of a batch."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from advkit.core.errors import ConfigError
from advkit.core.threat import Threat

STEPS = 8
"""Of the search for a price of the budget in l2; the set of values at the box is mostly found after four."""
TINY = torch.finfo(torch.float64).tiny


class Ball:
    """The ball as ``Threat.contains`` defines it: of ``eps`` plus its slack.

    Args:
        x: (N, C, H, W) originals in [0, 1]; converted to float64.
        threat: linf, l2 or l1.

    Raises:
        ConfigError: l0, whose ball is not convex.
    """

    def __init__(self, x: Tensor, threat: Threat) -> None:
        refuse_l0(threat)
        self.x = x.double()
        self.norm, self.eps = threat.norm, threat.eps + threat.slack
        self.lower = (self.x - self.eps).clamp(0, 1)
        """(N, C, H, W) ends of the smallest box around it."""
        self.upper = (self.x + self.eps).clamp(0, 1)

    @property
    def size(self) -> Tensor:
        """(N, C, H, W) bound of the absolute values that bounds are summed up from."""
        return self.x.abs() + self.eps

    def least(self, a: Tensor, index: Tensor) -> Tensor:
        """(R,) float64: the minima of linear functions on the ball, or a little below in l2.

        Args:
            a: (R, C, H, W) coefficients.
            index: (R,) image of each row.
        """
        middle, radius, x = (part.permute(0, 3, 1, 2)[index] for part in self.rows)
        return self.least_of(a, middle, radius, x)

    def least_of(self, a: Tensor, middle: Tensor, radius: Tensor, x: Tensor) -> Tensor:
        """(R,) as `least`, of the ``rows`` that belong to each row, or of windows of them."""
        low = _dot(a, middle) - _dot(a.abs(), radius)
        if self.norm == "linf":
            return low
        room = torch.where(a > 0, x - (middle - radius), middle + radius - x).flatten(1)
        return torch.maximum(low, _dot(a, x) - self._fall(a.flatten(1).double().abs(), room))

    def _fall(self, slope: Tensor, room: Tensor) -> Tensor:
        """(R,) how far functions of ``slope`` (R, D) fall at most, where values have ``room`` (R, D) in the
        box: by a price of the budget, of which any gives an upper bound, without negative terms."""
        fixed = slope.detach()
        if self.norm == "l1":
            price = self._price_in_l1(fixed, room)
            return price[:, 0] * self.eps + ((slope - price).clamp(min=0) * room).sum(1)
        price = self._price_in_l2(fixed, room)
        moved = torch.minimum(slope / (2 * price).clamp(min=TINY), room)
        return ((slope - price * moved) * moved).sum(1) + price[:, 0] * self.eps**2

    def _price_in_l1(self, slope: Tensor, room: Tensor) -> Tensor:
        """(R, 1): that of the steepest value for which the budget is too short; 0 if it is enough for all."""
        steep, order = slope.sort(dim=1, descending=True)
        paid = (room.gather(1, order).cumsum(1) < self.eps).sum(1, keepdim=True)
        return torch.nn.functional.pad(steep, (0, 1)).gather(1, paid)

    def _price_in_l2(self, slope: Tensor, room: Tensor) -> Tensor:
        """(R, 1): values that a price moves to the box stay there at lower ones."""
        squares = slope**2
        price = squares.sum(1, keepdim=True).sqrt() / (2 * self.eps)
        for _ in range(STEPS):
            boxed = slope > 2 * price * room
            left = self.eps**2 - (room**2 * boxed).sum(1, keepdim=True)
            price = ((squares * ~boxed).sum(1, keepdim=True) / left.clamp(min=TINY)).sqrt() / 2
        return price

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Middle and radius of the box, and the originals, each (N, H, W, C)."""
        parts = ((self.upper + self.lower) / 2, (self.upper - self.lower) / 2, self.x)
        middle, radius, x = (part.permute(0, 2, 3, 1).contiguous() for part in parts)
        return middle, radius, x


class Box(Ball):
    """Any box: a part of that around a ball in linf.

    Args:
        lower: (N, C, H, W) float64.
        upper: (N, C, H, W) float64.
    """

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        self.lower, self.upper, self.norm = lower, upper, "linf"
        self.x = (lower + upper) / 2

    @property
    def size(self) -> Tensor:
        """See `Ball`."""
        return torch.maximum(self.lower.abs(), self.upper.abs())


def _dot(a: Tensor, values: Tensor) -> Tensor:
    """(R,) float64"""
    return (a * values).flatten(1).sum(1)


def refuse_l0(threat: Threat) -> None:
    """Raises ConfigError for l0, which has no linear bounds."""
    if threat.norm == "l0":
        raise ConfigError(
            "an l0 ball (a few values changed arbitrarily) has no linear bounds; choose --norm linf, l2 or l1"
        )
