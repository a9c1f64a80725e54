"""Square Attack in l2 and l1: mass moves from one window to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.attacks.parts.windows import Windows
from advkit.core import rng
from advkit.core.threat import Threat

SMALLEST = 3
TILES = 5
"""MassProposals along a side at first."""


class MassProposals:
    """Starts from tiles of bumps; then mixes the change in a window with a bump and gives it the mass of a
    second window and the part of the budget that the box [0, 1] has left unused.

    A bump is two pyramids of opposite sign, side by side or one above the other (the paper's section 3.4 and
    its appendix on l1). Mass is the square (l2) or the absolute value (l1) of a change; the mass of the image
    is conserved, so that the clamp to the box is the only projection.

    Args:
        p: share of the pixels that the first windows cover.
        threat: l2 or l1.
        shape: (C, H, W) of the images.
    """

    def __init__(self, p: float, threat: Threat, shape: tuple[int, ...]) -> None:
        self.windows = Windows(p, shape, smallest=SMALLEST, odd=True)
        self.power = 2 if threat.norm == "l2" else 1
        self.channels, self.height, self.width = shape
        # Every value of an image is rounded by up to 2**-25, and in l1 all errors may add up.
        rounding = math.prod(shape) ** (1 / self.power) * 2.0**-25
        self.budget = max(threat.eps * (1 - 1e-6) - rounding, 0.99 * threat.eps) ** self.power
        self._tables: dict[torch.device, Tensor] = {}

    def limits(self, x0: Tensor) -> Tensor:
        """(R, 1, C, H, W) the originals, from which distances count."""
        return x0[:, None]

    def first(self, x0: Tensor, key: Tensor) -> Tensor:
        """A square of bumps, of random sign in each channel, that fills the budget."""
        side = max(self.height // TILES, 1)
        tall, wide = self.height // side, self.width // side
        sign = (rng.integers(key, (self.channels, tall, wide), 2) * 2 - 1).float()
        sign = sign.repeat_interleave(side, 2).repeat_interleave(side, 3)
        tiles = sign * bump(side, self.power).to(x0.device).repeat(tall, wide)
        change = torch.zeros_like(x0)
        top, left = (self.height - tall * side) // 2, (self.width - wide * side) // 2
        change[:, :, top : top + tall * side, left : left + wide * side] = tiles
        mass = self._mass(change[:1]).sum()  # the same for every row
        return change.mul_((self.budget / mass) ** (1 / self.power)).add_(x0).clamp_(0, 1)

    def next(self, best: Tensor, limits: Tensor, key: Tensor, iteration: Tensor) -> Tensor:
        """(R, M, C, H, W) the best point so far, with mass moved from one window to another in M ways.

        Args:
            best: (R, C, H, W) in the ball.
            limits: see `limits`.
            key: (R, M) random keys of these queries.
            iteration: (R, M) queries so far.
        """
        many = key.shape[1]
        moved = self._moved(
            best.repeat_interleave(many, 0),
            limits[:, 0].repeat_interleave(many, 0),
            key.flatten(),
            iteration.flatten(),
        )
        return moved.view(*key.shape, *best.shape[1:])

    def _moved(self, best: Tensor, x0: Tensor, key: Tensor, iteration: Tensor) -> Tensor:
        draws = rng.uniform(key, (5 + self.channels,))
        level = self.windows.level(iteration)
        corners = self.windows.corners(self.windows.side(level), draws[:, :4].view(-1, 2, 2))
        tall, wide, rows, columns = self._placed(level, draws[:, 4] < 0.5, corners)
        gains = rows[:, :1, :, None] * columns[:, :1, None]
        both = torch.maximum(gains, rows[:, 1:, :, None] * columns[:, 1:, None])

        change = best - x0
        mass = self._mass(change)
        unused = (self.budget - mass.sum((1, 2, 3))).clamp_(min=0)[:, None] / self.channels
        due = (mass * both).sum((2, 3)) + unused
        sign = (draws[:, 5:, None] >= 0.5).float().mul_(2).sub_(1)
        new = torch.minimum(tall[:, :1, :, None], wide[:, :1, None])
        new = (new * (tall[:, 1:] * sign)[..., None]).mul_(wide[:, 1:, None])
        new.addcmul_(change * gains, self._over(1, (mass * gains).sum((2, 3))))
        change.addcmul_(change, both, value=-1).addcmul_(new, self._over(due, self._mass(new).sum((2, 3))))
        return change.add_(x0).clamp_(0, 1)

    def _mass(self, change: Tensor) -> Tensor:
        return change.square() if self.power == 2 else change.abs()

    def _over(self, due: Tensor | int, mass: Tensor) -> Tensor:
        """(R, C, 1, 1) factor that scales a change of mass ``mass`` to mass ``due``."""
        factor = due / mass.clamp(min=1e-12)
        return (factor.sqrt() if self.power == 2 else factor)[..., None, None]

    def _placed(
        self, level: Tensor, turned: Tensor, corners: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Profiles of the windows over the rows and columns of the image.

        A bump is a decreasing function of the larger distance from a centre along either axis: so it is the
        minimum of a row profile and a column profile, times a factor for each.

        Returns:
            (R, 2, H) profile and factor of the rows, (R, 2, W) of the columns in the first window; (R, 2, H)
            and (R, 2, W) 1 for rows and columns inside the first and the second, 0 outside.
        """
        if level.device not in self._tables:
            self._tables[level.device] = self._table().to(level.device)
        axis = torch.stack([turned, ~turned], 1)
        at = (level[:, None] * 2 + axis)[:, None].expand(-1, 2, -1)
        placed = self._tables[level.device][at, corners]
        tall, wide = placed[:, 0, 0, :2, : self.height], placed[:, 0, 1, :2, : self.width]
        return tall, wide, placed[:, :, 0, 2, : self.height], placed[:, :, 1, 2, : self.width]

    def _table(self) -> Tensor:
        """(L * 2, S, 3, S): for each level, along and across the halves of a bump, and for each place of the
        window: the profile, the factor, and 1 inside; S is the longer side of the image."""
        size = max(self.height, self.width)
        table = torch.zeros(len(self.windows.sides) * 2, size, 3, size)
        for level, side in enumerate(self.windows.sides):
            halves, whole, factor = _axes(side, self.power)
            one = torch.ones(side)
            for corner in range(size - side + 1):
                inside = slice(corner, corner + side)
                table[level * 2, corner, :, inside] = torch.stack([halves, factor, one])
                table[level * 2 + 1, corner, :, inside] = torch.stack([whole, one, one])
        return table


def bump(side: int, power: int) -> Tensor:
    """(S, S) an upper pyramid above 0 and a lower one below, of mass 1 together."""
    halves, whole, factor = _axes(side, power)
    return torch.minimum(halves[:, None], whole) * factor[:, None]


def _axes(side: int, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """(S,) profile along the rows, along the columns, and the factor of each row.

    The height at distance d from a half's centre is the sum of 1 / m**2 over m = d + 1 .. S // 2 + 1; both
    halves have the same mass.
    """
    reach = side // 2 + 1
    decrements = 1 / torch.arange(1, reach + 1, dtype=torch.float64) ** 2
    height = torch.cat([decrements.flip(0).cumsum(0).flip(0), torch.zeros(side)])
    upper, place = side // 2, torch.arange(side)
    centre = torch.where(place < upper, upper // 2, upper + (side - upper) // 2)
    halves, whole = height[(place - centre).abs()], height[(place - side // 2).abs()]
    mass = (torch.minimum(halves[:, None], whole) ** power).sum(1)
    weights = torch.stack([mass[:upper].sum(), mass[upper:].sum()])[(place >= upper).long()]
    factor = torch.where(place < upper, 1.0, -1.0) / (weights * (2 if side > 1 else 1)) ** (1 / power)
    return halves.float(), whole.float(), factor.float()
