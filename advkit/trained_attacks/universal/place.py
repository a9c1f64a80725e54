"""Applies patches to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from advkit.attacks.engine.record import TensorRecord
from advkit.core import rng
from advkit.core.warp import frame, look_up

Form = Literal["circle", "square"]


@dataclass
class Place(TensorRecord):
    """Position, size and rotation of a patch in each image."""

    scale: Tensor
    """(R,) its diameter as a share of the image's shorter side."""
    angle: Tensor
    """(R,) degrees, counter-clockwise."""
    across: Tensor
    """(R,) from 0, at the left edge, to 1, at the right one; the patch is always inside."""
    down: Tensor
    """(R,) from 0, at the upper edge, to 1, at the lower one."""

    @classmethod
    def drawn(cls, key: Tensor, scale: Sequence[float], rotation: float) -> Place:
        """Uniform ones, by (R,) keys of `advkit.core.rng`."""
        size, angle, across, down = rng.uniform(key, (4,)).unbind(1)
        return cls(scale[0] + (scale[1] - scale[0]) * size, rotation * (2 * angle - 1), across, down)


def paste(patch: Tensor, x: Tensor, place: Place, form: Form) -> Tensor:
    """Images with a patch in each.

    Args:
        patch: (1, C, h, w) in [0, 1].
        x: (R, C, H, W) in [0, 1].
        place: for each image.
        form: outline; its edge is smoothed over one pixel of the image.

    Returns:
        (R, C, H, W) in [0, 1], differentiable with respect to the patch.
    """
    height, width = x.shape[2:]
    half = place.scale * (min(height, width) / 2)
    across = half + place.across * (width - 2 * half)
    down = half + place.down * (height - 2 * half)
    u, v = frame(height, width, across, down, place.angle, half, half)
    cover = coverage(u, v, half.view(-1, 1, 1), form)[:, None]
    return x + cover * (look_up(patch.expand(len(x), -1, -1, -1), u, v, "border") - x)


def coverage(u: Tensor, v: Tensor, half: Tensor | float, form: Form) -> Tensor:
    """Share of a pixel at (u, v) that the patch covers, 0 to 1, by its distance from the outline.

    Args:
        u: across the patch, from -1 to 1.
        v: down the patch, from -1 to 1.
        half: half of the patch's diameter, in pixels.
        form: outline.
    """
    outward = (u.square() + v.square()).sqrt() if form == "circle" else torch.maximum(u.abs(), v.abs())
    return ((1 - outward) * half + 0.5).clamp(0, 1)
