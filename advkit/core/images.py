"""Images as PNG: single ones and grids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advkit.core import files


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [0, 1] as 8-bit levels, rounded; uint8 ones as they are."""
    if images.dtype == torch.uint8:
        return images
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def grid(images: Tensor, columns: int, *, margin: int = 1, paper: int = 255) -> Tensor:
    """One uint8 image (C, H', W') of many (N, C, H, W), row by row, ``margin`` pixels of ``paper`` apart."""
    images = to_uint8(images.cpu())
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full(
        (channels, rows * (height + margin) + margin, columns * (width + margin) + margin),
        paper,
        dtype=torch.uint8,
    )
    for index, image in enumerate(images):
        top = margin + (index // columns) * (height + margin)
        left = margin + (index % columns) * (width + margin)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def png_bytes(image: Tensor, *, zoom: int = 1) -> bytes:
    """PNG of one (C, H, W) image; ``zoom`` repeats every pixel, for images too small to look at."""
    array = to_uint8(image.cpu()).permute(1, 2, 0).numpy()
    array = array.repeat(zoom, 0).repeat(zoom, 1)
    picture = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_grid(path: Path, images: Tensor, columns: int, *, pixels: int = 800) -> None:
    """Writes a grid of images as PNG, enlarged by a whole factor up to about ``pixels`` wide."""
    sheet = grid(images, columns)
    files.write_bytes(path, png_bytes(sheet, zoom=max(1, pixels // sheet.shape[2])))
