"""Square windows that shrink during a search, one or more a row."""

from __future__ import annotations

import torch
from torch import Tensor

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share of the image that a window covers halves, whatever the limit of queries."""


class Windows:
    """The schedule of Square Attack (Andriushchenko et al., ECCV 2020, section 3.2).

    Args:
        p: share of the pixels that the first windows cover.
        shape: (C, H, W) of the images.
        smallest: least side.
        odd: only odd sides (an even one is raised by 1), so that a window has a centre.
    """

    def __init__(self, p: float, shape: tuple[int, ...], *, smallest: int = 1, odd: bool = False) -> None:
        _, self.height, self.width = shape
        shares = [p / 2**halving for halving in range(len(HALVINGS) + 1)]
        sides = [max(round((share * self.height * self.width) ** 0.5), smallest) for share in shares]
        sides = [side + (odd and side % 2 == 0) for side in sides]
        short = min(self.height, self.width)
        self.sides = [min(side, short - (odd and short % 2 == 0)) for side in sides]
        """Side of the windows before the first halving, after it, and so on."""
        self._tables: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def level(self, iteration: Tensor) -> Tensor:
        """(R,) how often p has halved for the query that follows ``iteration`` others."""
        return torch.bucketize(iteration, self._table(iteration)[0])

    def side(self, level: Tensor) -> Tensor:
        """(R,) side in pixels."""
        return self._table(level)[1][level]

    def corners(self, side: Tensor, draws: Tensor) -> Tensor:
        """(R, M, 2) first row and column of M windows a row, where the whole window fits.

        Args:
            side: (R,) in pixels.
            draws: (R, M, 2) uniform in [0, 1).
        """
        room = self._table(side)[2] - side[:, None] + 1
        return (draws * room[:, None]).long()

    def inside(self, corners: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows (R, M, H) and columns (R, M, W) of the image belong to each window: 1 or 0 (float32).

        Their product is 1 on the window; arithmetic is many times faster than masking.
        """
        place = self._table(side)[3] - corners[..., None]
        within = ((place >= 0) & (place < side[:, None, None, None])).float()
        return within[..., 0, : self.height], within[..., 1, : self.width]

    def _table(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        device = like.device
        if device not in self._tables:
            self._tables[device] = (
                torch.tensor(HALVINGS, device=device),
                torch.tensor(self.sides, device=device),
                torch.tensor([self.height, self.width], device=device),
                torch.arange(max(self.height, self.width), device=device),
            )
        return self._tables[device]
