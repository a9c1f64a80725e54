"""The ball of a threat model inside [0, 1], around each image of a batch."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from advkit.core.errors import ConfigError
from advkit.core.threat import Threat


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
        """(R,) float64: lower bounds of linear functions on the ball.

        In linf it is the minimum. In l2 and l1 it is the larger of the minima over the ball, by the dual
        norm, and over the box.

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
        flat = a.flatten(1).double()
        dual = flat.norm(dim=1) if self.norm == "l2" else flat.abs().amax(1)
        return torch.maximum(low, _dot(a, x) - self.eps * dual)

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
