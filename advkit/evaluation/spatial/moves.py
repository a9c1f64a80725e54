"""Rotations and translations to try.

Source: Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.core import rng


@dataclass(frozen=True)
class Limits:
    """Limits of rotation and translation.

    A move is (angle in degrees, counter-clockwise; pixels to the right; pixels downwards).
    """

    rotation: float
    """Degrees, in either direction."""
    shift: float
    """Pixels, in each direction."""

    def size(self, moves: Tensor) -> Tensor:
        """(...,) the largest of a move's (..., 3) components relative to its limit: 0 to 1."""
        most = torch.tensor([self.rotation, self.shift, self.shift], device=moves.device)
        share: Tensor = moves.abs() / most.clamp(min=1e-12)
        return share.amax(-1)

    def contain(self, moves: Tensor) -> Tensor:
        """(...,) bool: within the limits, up to rounding."""
        return self.size(moves) <= 1 + 1e-6


def random_moves(limits: Limits, ids: Tensor, count: int, seed: int) -> Tensor:
    """(N, count, 3) moves, uniform within the limits, by the samples' ids."""
    drawn = 2 * rng.uniform(rng.keys(seed, "spatial", ids), (count, 3)) - 1
    return drawn * torch.tensor([limits.rotation, limits.shift, limits.shift], device=ids.device)


def grid_moves(limits: Limits, rotations: int, shifts: int) -> Tensor:
    """(K, 3) all combinations of evenly spaced rotations and shifts, the smallest first."""
    angles = _spread(limits.rotation, rotations)
    along = _spread(limits.shift, shifts)
    moves: Tensor = torch.cartesian_prod(angles, along, along).unique(dim=0)
    order = limits.size(moves).argsort(stable=True)
    return moves.index_select(0, order)


def _spread(most: float, count: int) -> Tensor:
    """From -most to most; a single value is 0."""
    return torch.linspace(-most, most, count) if count > 1 else torch.zeros(1)
