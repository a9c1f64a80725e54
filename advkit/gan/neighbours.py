"""Nearest neighbours among some ten thousand points: exact, and in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.core.errors import DataError

CELLS = 2**24
"""Distances held at a time: 64 MB."""
ROUNDING = 8 * torch.finfo(torch.float32).eps
"""Largest error of a squared distance, as a part of both squared lengths; of copies at most 5 epsilons."""


def pieces(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared Euclidean distances (n, M) of some ``points`` at a time to all ``others`` (M, D), and which.

    Both are moved to the mean of ``others`` first, because the difference of large numbers is inexact. What
    is within rounding of 0 is 0, so that copies are as near as can be, whichever rows they are in.
    """
    centre = others.mean(0)
    points, others = points - centre, others - centre
    squares, size = (others**2).sum(1), max(1, CELLS // len(others))
    for first in range(0, len(points), size):
        part = points[first : first + size]
        both = squares + (part**2).sum(1, keepdim=True)
        found = torch.addmm(both, part, others.T, alpha=-2)
        yield slice(first, first + len(part)), found.masked_fill_(found <= ROUNDING * both, 0)


def nearest(points: Tensor, others: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(N, k) distances of each of ``points`` (N, D) to its ``k`` nearest ``others`` (M, D), rising, and which
    they are.

    Raises:
        DataError: fewer others than ``k``.
    """
    _refuse_few(len(others), k)
    found = [distance.topk(k, largest=False) for _, distance in pieces(points, others)]
    return torch.cat([each.values for each in found]).sqrt_(), torch.cat([each.indices for each in found])


def radii(points: Tensor, k: int) -> Tensor:
    """(N,) squared distance of each of ``points`` (N, D) to its k-th nearest other one.

    Raises:
        DataError: not more than ``k`` points.
    """
    _refuse_few(len(points) - 1, k)
    found = torch.empty(len(points))
    for where, distance in pieces(points, points):
        rows = torch.arange(where.start, where.stop)
        distance[rows - where.start, rows] = torch.inf  # a point is no neighbour of its own
        found[where] = distance.topk(k, largest=False).values[:, -1]
    return found


def inside(points: Tensor, centres: Tensor, squares: Tensor) -> Tensor:
    """(N,) int64: how many balls hold each point.

    Args:
        points: (N, D).
        centres: (M, D) of the balls.
        squares: (M,) squared radii.
    """
    found = [(distance <= squares).sum(1) for _, distance in pieces(points, centres)]
    return torch.cat(found)


def covered(centres: Tensor, squares: Tensor, points: Tensor) -> float:
    """Share of balls that hold a point.

    Args:
        centres: (M, D) of the balls.
        squares: (M,) squared radii.
        points: (N, D).
    """
    held = [distance.amin(1) <= squares[where] for where, distance in pieces(centres, points)]
    return float(torch.cat(held).float().mean())


def _refuse_few(there: int, k: int) -> None:
    if there < k:
        raise DataError(f"{there} images have no {k} nearest neighbours; give more images")
