"""Digital corruptions: brightness, contrast, saturation, compression, coarse pixels and elastic changes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advkit.core import rng
from advkit.core.images import to_uint8
from advkit.core.warp import look_up
from advkit.data.corruption import Draw, corruption
from advkit.data.filters import fold, gaussian_filter


@corruption(
    "brightness",
    summary="brighter by a constant (the value of HSV)",
    large=(0.1, 0.2, 0.3, 0.4, 0.5),
    small=(0.05, 0.1, 0.15, 0.2, 0.3),
)
def brightness(x: Tensor, more: float, draw: Draw) -> Tensor:
    """The largest of a pixel's channels grows by ``more``, the others in proportion; black becomes grey."""
    value = x.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return torch.where(value > 0, x * brighter / value, brighter)


@corruption(
    "contrast",
    summary="less contrast",
    large=(0.4, 0.3, 0.2, 0.1, 0.05),
    small=(0.75, 0.5, 0.4, 0.3, 0.15),
)
def contrast(x: Tensor, kept: float, draw: Draw) -> Tensor:
    """Keeps a share of the difference from each channel's mean."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * kept + mean


@corruption(
    "saturate",
    summary="paler or stronger colours (the saturation of HSV)",
    large=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    small=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    colour=True,
)
def saturate(x: Tensor, constant: tuple[float, float], draw: Draw) -> Tensor:
    """The saturation times a factor, plus a constant; grey pixels turn red, the hue 0."""
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    saturation = torch.where(value > 0, (value - low) / value.clamp(min=1e-9), 0)
    red = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
    missing = torch.where(value > low, (value - x) / (value - low).clamp(min=1e-9), red)
    return value - value * missing * (saturation * constant[0] + constant[1]).clamp(0, 1)


def _each(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Images changed one by one by Pillow: grey or in colour, of other numbers of channels each by itself."""
    count, channels, height, width = x.shape
    if channels not in (1, 3):
        return _each(x.reshape(-1, 1, height, width), change).view(x.shape)
    arrays = to_uint8(x).permute(0, 2, 3, 1).numpy()
    changed = [change(Image.fromarray(each if channels == 3 else each[..., 0])) for each in arrays]
    stacked = np.stack([np.asarray(image) for image in changed]).reshape(count, height, width, channels)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


@corruption(
    "jpeg",
    summary="compressed as JPEG (by Pillow)",
    large=(25, 18, 15, 10, 7),
    small=(80, 65, 58, 50, 40),
)
def jpeg(x: Tensor, quality: int, draw: Draw) -> Tensor:
    """Written as a JPEG file of this quality, and read again."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _each(x, change)


@corruption(
    "pixelate",
    summary="coarser pixels",
    large=(0.6, 0.5, 0.4, 0.3, 0.25),
    small=(0.95, 0.9, 0.85, 0.75, 0.65),
)
def pixelate(x: Tensor, share: float, draw: Draw) -> Tensor:
    """Shrunk to a share of each side by averaging, and enlarged again without interpolation."""

    def change(image: Image.Image) -> Image.Image:
        small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BOX)

    return _each(x, change)


@corruption(
    "elastic",
    summary="distorted, as a sheet of rubber",
    large=(
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    small=((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    mnist=((56, 19.6, 2.8), (56, 2.24, 5.6), (1.4, 0.28, 0.56), (1.96, 0.28, 0.56), (3.36, 0.28, 0.56)),
)
def elastic(x: Tensor, constant: tuple[float, float, float], draw: Draw) -> Tensor:
    """A random affine map, then a smooth random field of shifts.

    The constants are, in published pixels: the factor of the field, the deviation of the Gaussian that
    smooths it, and how far three points of the affine map move at most. The border is black in MNIST-C and
    mirrored in the others.
    """
    factor, sigma, most = (each * draw.scale for each in constant)
    count, _, height, width = x.shape
    black = draw.family == "mnist-c"
    right, down = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")

    middle, arm = torch.tensor([width // 2, height // 2]), min(height, width) // 3
    points = middle + arm * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = points + most * (2 * rng.uniform(rng.step(draw.key, 0), (3, 2)) - 1)
    ones = torch.ones(count, 3, 1)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), points.expand(count, -1, -1))  # (N, 3, 2)
    plane = torch.stack([right, down, torch.ones_like(right)], -1).float().view(-1, 3)
    to = (plane @ back).view(count, height, width, 2)
    x = _at(x, to[..., 0], to[..., 1], None if black else 0.0)

    fields = [2 * rng.uniform(rng.step(draw.key, number), (1, height, width)) - 1 for number in (1, 2)]
    across, along = (factor * gaussian_filter(each, sigma, edge=0.5, truncate=3)[:, 0] for each in fields)
    across, along = right + across, down + along
    if black:  # nothing is interpolated between the border and the outside
        inside = (across >= 0) & (across <= width - 1) & (along >= 0) & (along <= height - 1)
        return _at(x, across, along, None) * inside[:, None]
    return _at(x, across, along, 0.5)


def _at(x: Tensor, across: Tensor, down: Tensor, edge: float | None) -> Tensor:
    """The images at places (N, H, W) in pixels, interpolated; outside black, or mirrored as in `fold`."""
    height, width = x.shape[2:]
    if edge is not None:
        across, down = fold(across, width, edge), fold(down, height, edge)
    u, v = (2 * across + 1) / width - 1, (2 * down + 1) / height - 1
    return look_up(x, u, v, "zeros" if edge is None else "border")
