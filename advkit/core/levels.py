"""Images of 8-bit levels: those that a PNG file can hold."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core.threat import Threat

_NEAR = 1e-4
"""How far from a level, in levels, arithmetic in float32 may leave a value that lies on it."""


def as_image(levels: Tensor) -> Tensor:
    """Levels from 0 to 255 as float32 in [0, 1], the same bits on every device.

    The divisor is a tensor because a GPU multiplies by the rounded reciprocal of a plain number.
    """
    return levels.to(torch.float32, copy=True).div_(torch.full((), 255.0, device=levels.device))


def are_levels(images: Tensor) -> bool:
    """Whether every value of float images in [0, 1] is a multiple of 1/255, but for rounding."""
    scaled = images.float() * 255
    return bool(((scaled - scaled.round()).abs() <= _NEAR).all())


def round_inside(x: Tensor, x0: Tensor, threat: Threat) -> Tensor:
    """(N, C, H, W) images of 8-bit levels near ``x`` and inside the threat model.

    Every value is rounded to the nearest level; where that would leave the budget, toward the original,
    which never does: the single values for linf, all of the image for the other norms.

    Args:
        x: (N, C, H, W) images inside the threat model.
        x0: their originals, of 8-bit levels.
    """
    scaled = x * 255
    nearest = scaled.round()
    toward = torch.where(x > x0, (scaled + _NEAR).floor(), (scaled - _NEAR).ceil())
    rounded = as_image(nearest)
    if threat.norm == "linf":
        outside = (rounded - x0).abs() > threat.eps + threat.slack
    else:
        outside = ~threat.contains(rounded, x0).view(-1, 1, 1, 1)
    return as_image(torch.where(outside, toward, nearest).clamp_(0, 255))
