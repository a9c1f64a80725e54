"""Rotated, scaled and translated images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

Padding = Literal["zeros", "border", "reflection"]
"""Padding where an image has no pixel: black, its nearest pixel, or the image mirrored."""


def frame(
    height: int,
    width: int,
    across: Tensor,
    down: Tensor,
    angle: Tensor,
    half_width: Tensor,
    half_height: Tensor,
) -> tuple[Tensor, Tensor]:
    """Where the pixels of a canvas lie on a thing that was put on it: -1 and 1 are the thing's edges.

    Every operation is elementwise, so that what happens to a row does not depend on the rows beside it.

    Args:
        height: of the canvas, in pixels.
        width: likewise.
        across: (R,) the thing's centre, in pixels from the canvas's left edge.
        down: (R,) in pixels from its upper edge.
        angle: (R,) by which the thing is turned counter-clockwise, in degrees.
        half_width: (R,) half of the thing's width on the canvas, in pixels.
        half_height: likewise.

    Returns:
        ((R, height, width) across the thing, (R, height, width) down it).
    """

    def per_row(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)

    right = torch.arange(width, device=angle.device).add(0.5).view(1, 1, -1) - per_row(across)
    below = torch.arange(height, device=angle.device).add(0.5).view(1, -1, 1) - per_row(down)
    turn = torch.deg2rad(angle)
    cosine, sine = per_row(turn.cos()), per_row(turn.sin())
    u = (right * cosine - below * sine) / per_row(half_width)
    v = (right * sine + below * cosine) / per_row(half_height)
    return u, v


def look_up(image: Tensor, u: Tensor, v: Tensor, padding: Padding) -> Tensor:
    """(R, C, H, W) the colours at the points (u, v) of images (R, C, h, w), interpolated bilinearly."""
    points = torch.stack([u, v], -1)
    return grid_sample(image, points, mode="bilinear", padding_mode=padding, align_corners=False)


def turn_and_shift(x: Tensor, angle: Tensor, across: Tensor, down: Tensor, padding: Padding) -> Tensor:
    """Images turned about their centre, then shifted.

    Args:
        x: (R, C, H, W) in [0, 1].
        angle: (R,) in degrees, counter-clockwise.
        across: (R,) in pixels, to the right.
        down: (R,) in pixels, downwards.

    Returns:
        (R, C, H, W) in [0, 1].
    """
    height, width = x.shape[2:]
    half_width, half_height = torch.full_like(angle, width / 2), torch.full_like(angle, height / 2)
    u, v = frame(height, width, half_width + across, half_height + down, angle, half_width, half_height)
    return look_up(x, u, v, padding).clamp(0, 1)


def mapped(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    across: Tensor | float = 0.0,
    down: Tensor | float = 0.0,
) -> Tensor:
    """Images under affine maps about their centre; the border is black.

    The pixel at (u, v) from the centre, in pixels to the right and downwards, gets the colour at
    (a u + b v + across, c u + d v + down), interpolated bilinearly.

    Args:
        x: (R, C, H, W) in [0, 1].
        a: (R,), as b, c, d, across and down.

    Returns:
        (R, C, H, W) in [0, 1].
    """
    height, width = x.shape[2:]
    right = torch.arange(width, device=x.device) - (width - 1) / 2
    below = (torch.arange(height, device=x.device) - (height - 1) / 2)[:, None]
    parts = (torch.as_tensor(each, device=x.device).view(-1, 1, 1) for each in (a, b, c, d, across, down))
    a, b, c, d, across, down = parts
    return look_up(
        x, 2 * (a * right + b * below + across) / width, 2 * (c * right + d * below + down) / height, "zeros"
    )
