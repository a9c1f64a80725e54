"""Filters of images, for corruptions: mirrored borders and Gaussian blurs."""

from __future__ import annotations

import torch
from torch import Tensor


def fold(place: Tensor, n: int, edge: float) -> Tensor:
    """Places along a line of ``n`` pixels, mirrored into it.

    Args:
        place: in pixels; 0 is the middle of the first pixel.
        n: 2 or more.
        edge: 0.5: mirrored at the outer edge of the last pixel, which so occurs twice; 0: at its middle.
    """
    period = 2 * (n - 1 + 2 * edge)
    along = (place + edge) % period
    return torch.minimum(along, period - along) - edge


def pad(x: Tensor, reach: int, edge: float) -> Tensor:
    """Images (N, C, H, W) with ``reach`` more pixels on all sides, mirrored as in `fold`."""
    rows, columns = (
        fold(torch.arange(-reach, side + reach).double(), side, edge).long() for side in x.shape[2:]
    )
    return x[:, :, rows][..., columns]


def gaussian_filter(x: Tensor, sigma: float, *, edge: float | None = None, truncate: float = 4.0) -> Tensor:
    """Images blurred by a Gaussian of the standard deviation ``sigma`` pixels, as scipy.ndimage does it.

    Args:
        x: (N, C, H, W).
        sigma: 0 or more.
        edge: mirrored as in `fold`; None: the nearest pixel continues.
        truncate: standard deviations after which the weights end.
    """
    if sigma <= 0:
        return x
    reach = int(truncate * sigma + 0.5)
    offset = torch.arange(-reach, reach + 1).double()
    taps = torch.exp(-0.5 * (offset / sigma) ** 2)
    taps = taps / taps.sum()
    down, across = (_matrix(side, offset, taps, edge).to(x.dtype) for side in x.shape[2:])
    return down @ x @ across.T


def _matrix(side: int, offset: Tensor, taps: Tensor, edge: float | None) -> Tensor:
    """(side, side): what each pixel of a line takes from each."""
    place = torch.arange(side)[:, None] + offset
    place = place.clamp(0, side - 1) if edge is None else fold(place, side, edge)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, place.long(), taps.expand(side, -1))
