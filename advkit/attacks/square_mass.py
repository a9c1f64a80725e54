"""Square windows in l2 and l1: what one window loses, another gets."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit import rng
from advkit.attacks.windows import Windows
from advkit.threat import Threat

SMALLEST = 3
TILES = 5
"""Bumps along a side at first."""


class Bumps:
    """Tiles of bumps first; then the change in a window is mixed with a bump and grows by what a second
    window gives up, and by what the box [0, 1] has left unused of the budget.

    A bump is two pyramids of opposite sign, side by side or one above the other (the paper's section 3.4 and
    its appendix on l1). Mass is the square (l2) or the absolute value (l1) of a change, so that the mass of
    the whole image is conserved and no projection is needed but the clamp to the box.

    Args:
        p: share of the pixels that the first windows cover.
        threat: l2 or l1.
        shape: (C, H, W) of the images.
    """

    def __init__(self, p: float, threat: Threat, shape: tuple[int, ...]) -> None:
        self.windows = Windows(p, shape, smallest=SMALLEST, odd=True)
        self.power = 2 if threat.norm == "l2" else 1
        self.budget = (threat.eps * (1 - 1e-6)) ** self.power  # so that rounding does not leave the ball
        self.channels, self.height, self.width = shape
        self._profiles: dict[torch.device, Tensor] = {}

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

    def next(self, best: Tensor, x0: Tensor, key: Tensor, iteration: Tensor) -> Tensor:
        """(R, C, H, W) the best point so far, with mass moved from one window to another.

        Args:
            best: (R, C, H, W) in the ball.
            x0: (R, C, H, W) originals.
            key: (R,) random keys of this query.
            iteration: (R,) queries so far.
        """
        draws = rng.uniform(key, (5 + self.channels,))
        level = self.windows.level(iteration)
        side = self.windows.side(level)
        corners = self.windows.corners(side, draws[:, :4].view(-1, 2, 2))
        rows, columns = self.windows.inside(corners, side)
        gains = rows[:, :1, :, None] * columns[:, :1, None]
        both = torch.maximum(gains, rows[:, 1:, :, None] * columns[:, 1:, None])

        change = best - x0
        mass = self._mass(change)
        unused = (self.budget - mass.sum((1, 2, 3))).clamp_(min=0)[:, None] / self.channels
        due = (mass * both).sum((2, 3)) + unused
        was = change * gains
        new = self._bumps(level, corners[:, 0], draws[:, 4] < 0.5)
        new = new * (draws[:, 5:, None, None] >= 0.5).float().mul_(2).sub_(1)
        new.addcmul_(was, self._over(1, (mass * gains).sum((2, 3))))
        change.addcmul_(change, both, value=-1).addcmul_(new, self._over(due, self._mass(new).sum((2, 3))))
        return change.add_(x0).clamp_(0, 1)

    def _mass(self, change: Tensor) -> Tensor:
        return change.square() if self.power == 2 else change.abs()

    def _over(self, due: Tensor | int, mass: Tensor) -> Tensor:
        """(R, C, 1, 1) factor that makes a change of mass ``mass`` one of mass ``due``."""
        factor = due / mass.clamp(min=1e-12)
        return (factor.sqrt() if self.power == 2 else factor)[..., None, None]

    def _bumps(self, level: Tensor, corner: Tensor, turned: Tensor) -> Tensor:
        """(R, 1, H, W) a bump of mass 1 in each row's window, zero outside.

        A bump is a function of the larger distance from a centre along either axis, and falls with it: so it
        is the minimum of a profile of the rows and one of the columns, times a sign for each half.
        """
        at = level * 2 + turned
        table = self._profile(level)
        last = table.shape[3] - 1
        place = torch.arange(max(self.height, self.width), device=level.device) - corner[..., None]
        place = torch.where(place < 0, last, place.clamp(max=last))
        profile = table[at].gather(3, place[:, :, None].expand(-1, -1, 2, -1))
        tall, wide = profile[:, 0, :, : self.height], profile[:, 1, :, : self.width]
        height = torch.minimum(tall[:, :1, :, None], wide[:, :1, None])
        return height.mul_(tall[:, 1:, :, None]).mul_(wide[:, 1:, None])

    def _profile(self, like: Tensor) -> Tensor:
        """(L * 2, 2, 2, S + 1): for each level, and for it turned: of rows and columns, the profile and the
        factor; the last entry, zero, is for places outside."""
        if like.device not in self._profiles:
            longest = max(self.windows.sides)
            table = torch.zeros(len(self.windows.sides) * 2, 2, 2, longest + 1)
            for level, side in enumerate(self.windows.sides):
                halves, whole, factor = _axes(side, self.power)
                upright = torch.stack([torch.stack([halves, factor]), torch.stack([whole, whole * 0 + 1])])
                table[level * 2, :, :, :side] = upright
                table[level * 2 + 1, :, :, :side] = upright.flip(0)
            self._profiles[like.device] = table.to(like.device)
        return self._profiles[like.device]


def bump(side: int, power: int) -> Tensor:
    """(S, S) an upper pyramid above 0 and a lower one below, of mass 1 together."""
    halves, whole, factor = _axes(side, power)
    return torch.minimum(halves[:, None], whole) * factor[:, None]


def _axes(side: int, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """(S,) profile along the rows, along the columns, and the factor of each row.

    The height at distance d from a half's centre is the sum of 1 / m**2 over m = d + 1 .. S // 2 + 1; both
    halves weigh the same.
    """
    reach = side // 2 + 1
    falls = 1 / torch.arange(1, reach + 1, dtype=torch.float64) ** 2
    height = torch.cat([falls.flip(0).cumsum(0).flip(0), torch.zeros(side)])
    upper, place = side // 2, torch.arange(side)
    centre = torch.where(place < upper, upper // 2, upper + (side - upper) // 2)
    halves, whole = height[(place - centre).abs()], height[(place - side // 2).abs()]
    mass = (torch.minimum(halves[:, None], whole) ** power).sum(1)
    weights = torch.stack([mass[:upper].sum(), mass[upper:].sum()])[(place >= upper).long()]
    factor = torch.where(place < upper, 1.0, -1.0) / (weights * (2 if side > 1 else 1)) ** (1 / power)
    return halves.float(), whole.float(), factor.float()
