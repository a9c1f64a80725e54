"""Square Attack in linf: windows of plus or minus eps."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.attacks.parts.windows import Windows
from advkit.core import rng
from advkit.core.threat import Threat


class LinfProposals:
    """Stripes first, then windows of one sign per channel.

    Args:
        p: share of the pixels that the first windows cover.
        threat: linf.
        shape: (C, H, W) of the images.
    """

    def __init__(self, p: float, threat: Threat, shape: tuple[int, ...]) -> None:
        self.windows, self.eps, self.channels = Windows(p, shape), threat.eps, shape[0]

    def limits(self, x0: Tensor) -> Tensor:
        """(R, 2, C, H, W) the least and the largest allowed value of every entry."""
        return torch.stack([(x0 - self.eps).clamp_(min=0), (x0 + self.eps).clamp_(max=1)], 1)

    def first(self, x0: Tensor, key: Tensor) -> Tensor:
        """Vertical stripes, one pixel wide, of plus or minus eps in each channel."""
        sign = rng.integers(key, (self.channels, 1, x0.shape[3]), 2) * 2 - 1
        return (x0 + self.eps * sign).clamp_(0, 1)

    def next(self, best: Tensor, limits: Tensor, key: Tensor, iteration: Tensor) -> Tensor:
        """(R, M, C, H, W) the best point so far, with one window repainted in M ways.

        Args:
            best: (R, C, H, W) in the ball.
            limits: see `limits`.
            key: (R, M) random keys of these queries.
            iteration: (R, M) queries so far.
        """
        draws = rng.uniform(key.flatten(), (2 + self.channels,))
        side = self.windows.side(self.windows.level(iteration.flatten()))
        corners = self.windows.corners(side, draws[:, None, :2])
        rows, columns = self.windows.inside(corners, side)
        # Large enough that the clamp reaches a limit from any value.
        strokes = rows[..., None] * (4 * self.eps * (draws[:, 2:, None, None] >= 0.5) - 2 * self.eps)
        shape = key.shape
        x = best[:, None].addcmul(strokes.unflatten(0, shape), columns[:, :, None].unflatten(0, shape))
        return x.clamp_(limits[:, :1], limits[:, 1:])
