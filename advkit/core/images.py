"""Images as PNG: single ones and grids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from advkit.core import files


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [0, 1] as 8-bit levels, rounded; uint8 ones as they are."""
    if images.dtype == torch.uint8:
        return images
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def grid(images: Tensor, columns: int) -> Tensor:
    """One uint8 image (C, H', W') of many (N, C, H, W), row by row, with a white pixel around each."""
    tiles = pad(to_uint8(images.cpu()), (1, 0, 1, 0), value=255)
    blank = tiles.new_full((-len(tiles) % columns, *tiles.shape[1:]), 255)
    rows = torch.cat([tiles, blank]).unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4)
    return pad(rows.flatten(3).flatten(1, 2), (0, 1, 0, 1), value=255)


def png_bytes(image: Tensor, *, zoom: int = 1) -> bytes:
    """PNG of one (C, H, W) image; ``zoom`` repeats every pixel, for images too small to look at."""
    array = to_uint8(image.cpu()).permute(1, 2, 0).numpy()
    array = array.repeat(zoom, 0).repeat(zoom, 1)
    picture = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_grid(path: Path, images: Tensor, columns: int) -> None:
    """Writes a grid of images as PNG, enlarged by a whole factor up to about 800 pixels wide."""
    sheet = grid(images, columns)
    files.write_bytes(path, png_bytes(sheet, zoom=max(1, 800 // sheet.shape[2])))
