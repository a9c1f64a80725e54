"""Blur: defocus, Gaussian, glass, motion and zoom."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from advkit.core import rng
from advkit.data.corruption import Draw, corruption
from advkit.data.filters import gaussian_filter, pad


@corruption(
    "gaussian-blur",
    summary="a Gaussian blur",
    large=(1, 2, 3, 4, 6),
    small=(0.4, 0.6, 0.7, 0.8, 1),
)
def gaussian_blur(x: Tensor, sigma: float, draw: Draw) -> Tensor:
    """``sigma`` in published pixels."""
    return gaussian_filter(x, sigma * draw.scale)


@corruption(
    "defocus-blur",
    summary="a blur by a disc, as out of focus",
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
)
def defocus_blur(x: Tensor, constant: tuple[float, float], draw: Draw) -> Tensor:
    """Averages over a disc of a radius in published pixels, whose edge a Gaussian softens."""
    kernel = disc(constant[0] * draw.scale, constant[1])
    reach = kernel.shape[0] // 2
    padded = pad(x, reach, edge=0.0)
    return conv2d(padded.flatten(0, 1)[:, None], kernel[None, None]).view(x.shape)


def disc(radius: float, softness: float) -> Tensor:
    """(K, K) weights of sum 1: the pixels within ``radius``, blurred with the deviation ``softness`` over
    3 x 3 pixels, or 5 x 5 if the radius is more than 8."""
    wide = radius > 8
    reach = math.ceil(radius) if wide else 8
    at = torch.arange(-reach, reach + 1.0, dtype=torch.float64)
    inside = ((at[:, None] ** 2 + at**2) <= radius**2).double()
    taps = torch.exp(-0.5 * (torch.arange(-1.0 - wide, 2.0 + wide, dtype=torch.float64) / softness) ** 2)
    taps = taps / taps.sum()
    padded = pad((inside / inside.sum())[None, None], 1 + wide, edge=0.0)
    soft = conv2d(padded, (taps[:, None] * taps)[None, None])[0, 0]
    used = max(1, int((soft > 0).any(0).sum())) // 2
    return soft[reach - used : reach + used + 1, reach - used : reach + used + 1].float()


@corruption(
    "glass-blur",
    summary="pixels exchanged with near ones, as through frosted glass",
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
)
def glass_blur(x: Tensor, constant: tuple[float, int, int], draw: Draw) -> Tensor:
    """Blurs, exchanges pixels with ones up to ``reach`` away, ``rounds`` times, and blurs again.

    In MNIST-C, a pixel is exchanged with probability 1/2.
    """
    sigma, reach, rounds = constant[0] * draw.scale, max(1, round(constant[1] * draw.scale)), constant[2]
    count, channels, height, width = x.shape
    x = (gaussian_filter(x, sigma) * 255 + 1e-3).floor() / 255  # what was a level stays one
    rows, columns = (np.arange(side - reach, reach, -1) for side in (height, width))
    chance = 0.5 if draw.family == "mnist-c" else 1.0
    source = np.repeat(np.arange(height * width, dtype=np.int32)[:, None], count, 1)  # which pixel is where
    images = np.arange(count)
    for number in range(rounds):
        shape = (len(rows), len(columns), 2)
        moves = rng.integers(rng.step(draw.key, 2 * number), shape, 2 * reach).sub_(reach)
        swapped = rng.uniform(rng.step(draw.key, 2 * number + 1), shape[:2]) < chance
        by = (moves[..., 0] * width + moves[..., 1]).mul_(swapped).int().permute(1, 2, 0).contiguous().numpy()
        for i, row in enumerate(rows.tolist()):
            for j, column in enumerate(columns.tolist()):
                here = row * width + column
                there = here + by[i, j]
                other = source[there, images]
                source[there, images] = source[here]
                source[here] = other
    index = torch.from_numpy(source).long().T[:, None].expand(-1, channels, -1)
    return gaussian_filter(x.flatten(2).gather(2, index).view(x.shape), sigma)


@corruption(
    "motion-blur",
    summary="a blur along a line of random direction, as of a moving camera",
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
)
def motion_blur(x: Tensor, constant: tuple[float, float], draw: Draw) -> Tensor:
    """Averages along a line of up to 45 degrees, with Gaussian weights from the pixel on (as ImageMagick)."""
    reach, sigma = 2 * math.ceil(constant[0] * draw.scale) + 1, constant[1] * draw.scale
    weights = torch.exp(-0.5 * (torch.arange(reach) / sigma) ** 2)
    angle = torch.deg2rad(90 * rng.uniform(draw.key, (1,)) - 45)
    along = torch.arange(reach)
    across, down = ((along * part - 0.5).ceil().long() for part in (angle.cos(), angle.sin()))  # (N, reach)
    _, _, height, width = x.shape
    result = torch.zeros_like(x)
    flat = x.flatten(2)
    for step, weight in enumerate((weights / weights.sum()).tolist()):
        columns = (torch.arange(width) + across[:, step, None]).clamp_(0, width - 1)
        rows = (torch.arange(height) + down[:, step, None]).clamp_(0, height - 1)
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None]
        result.add_(flat.gather(2, index.expand(-1, x.shape[1], -1)).view(x.shape), alpha=weight)
    return result


@corruption(
    "zoom-blur",
    summary="the mean of enlarged copies, as of a fast approach",
    large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
)
def zoom_blur(x: Tensor, constant: tuple[float, float], draw: Draw) -> Tensor:
    """The mean of the image and of its middle enlarged by factors from 1 to the constant, in steps."""
    factors = np.arange(1, *constant).tolist()
    total = x.clone()
    for factor in factors:
        total += _enlarged(x, factor)
    return total / (len(factors) + 1)


def _enlarged(x: Tensor, factor: float) -> Tensor:
    """The middle of the images at their size, enlarged by a factor."""
    sides = x.shape[2:]
    kept = [math.ceil(side / factor) for side in sides]
    top, left = ((side - keep) // 2 for side, keep in zip(sides, kept, strict=True))
    size = [round(keep * factor) for keep in kept]
    middle = x[..., top : top + kept[0], left : left + kept[1]]
    grown = interpolate(middle, size, mode="bilinear", align_corners=True)
    top, left = ((big - side) // 2 for big, side in zip(size, sides, strict=True))
    return grown[..., top : top + sides[0], left : left + sides[1]]
