"""Proposals of Square Attack: windows of plus or minus eps in linf, moved mass in l2 and l1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.threat import Threat

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
