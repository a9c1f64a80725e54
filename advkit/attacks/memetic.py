"""The memetic attack: what many ascents found is recombined, and climbs again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import assign_, column
from advkit.attacks.losses.logit_difference import logit_difference
from advkit.attacks.parts.ascent import steepest_
from advkit.core import rng
from advkit.core.config import StrictModel

MOMENTUM = 0.75
FIRST, NEXT = 1 / 3, 1 / 6
"""First step of an ascent from a random point, and from a recombined one, in units of eps."""
SHARE = 0.05
"""l1 only: share of the values that a step moves."""
BLOCK = 4
"""Side of the squares that come from one parent together, in half of the children."""
REDRAWN = 0.2
"""Largest share of the values of a child that are random."""


@dataclass
class MemeticState(State):
    """The ascent of each row, and the best of earlier ascents."""

    momentum: Tensor
    """(R, C, H, W) running sum of gradients, each of mean size 1."""
    target: Tensor
    """(R,) class that the ascent moves toward; -1: the strongest wrong one."""
    top: Tensor
    """(R, C, H, W) best point of the ascent."""
    height: Tensor
    """(R,) how far it leads the true class, in logits."""
    pool: Tensor
    """(R, P, C, H, W) best points of earlier ascents."""
    heights: Tensor
    """(R, P) how far these lead it; -inf: none yet."""
    targets: Tensor
    """(R, P) the classes that they were moved toward."""


@attack(
    "memetic",
    summary="ascents from mixtures of the best points of earlier ascents, each with its target class",
    source="after Moscato 1989, and GenAttack, Alzantot et al. 2019",
)
class Memetic(Attack[MemeticState]):
    """Ascents from random points end in different local maxima, one more steep than the last; in a network
    of ReLUs each is the best point of a few linear pieces. A child takes some values from one of them, the
    others from a second, a few at random, and so starts with activations of both.
    """

    class Config(StrictModel):
        ascents: int = Field(1600, ge=1)
        """Ascents of each start; the first, as many as the pool has places, begin at random points."""
        length: int = Field(30, ge=1)
        """Gradient steps of an ascent."""
        pool: int = Field(16, ge=2)
        """Points that are kept."""
        classes: int = Field(3, ge=1)
        """Wrong classes that the first ascents move toward in turn, those of the largest logits."""
        restarts: int = Field(1, ge=1)
        """Pools, which know nothing of each other."""

    config: Config
    norms = ("linf", "l2", "l1")
    fine = True

    @property
    def steps(self) -> int:
        """Those of all ascents."""
        return self.config.ascents * self.config.length

    def start(self, rows: Rows) -> MemeticState:
        """A random point, and an empty pool."""
        x, places = self.threat.sample(rows.x0, rng.step(rows.key, 0)), (len(rows), self.config.pool)
        below = rows.x0.new_full(places, -torch.inf)
        return MemeticState(
            rows,
            x,
            torch.zeros_like(rows.label),
            momentum=torch.zeros_like(x),
            target=self._target(rows, torch.zeros_like(rows.label)),
            top=x.clone(),
            height=below[:, 0].clone(),
            pool=rows.x0[:, None].repeat(1, self.config.pool, 1, 1, 1),
            heights=below,
            targets=rows.label.new_zeros(places),
        )

    def step(self, state: MemeticState, oracle: Oracle) -> MemeticState:
        """One step of the ascent, or the first point of the next one."""
        rows, config = state.rows, self.config
        height, grad, _ = oracle.loss_and_grad(state.x, replace(rows, search_target=state.target), _lead)
        higher = height > state.height
        state.top = assign_(state.top, higher, state.x)
        state.height = torch.where(higher, height, state.height)
        grad.div_(column(grad.abs().flatten(1).mean(1).clamp_(min=1e-12), grad))
        state.momentum.mul_(MOMENTUM).add_(grad)

        number, taken = state.iteration // config.length, state.iteration % config.length
        size = torch.where(number < config.pool, FIRST, NEXT) * self.threat.eps * (1 - taken / config.length)
        move = steepest_(state.momentum.clone(), state.x, self.threat, SHARE)
        state.x = self.threat.project_(state.x.addcmul(move, column(size, move)), rows.x0)
        ended = (taken == config.length - 1).nonzero()[:, 0]
        if len(ended):
            begun = self._begun(state.take(ended), number[ended] + 1)
            for name in ("x", "momentum", "target", "top", "height", "pool", "heights", "targets"):
                getattr(state, name).index_copy_(0, ended, getattr(begun, name))
        return state

    def _begun(self, state: MemeticState, number: Tensor) -> MemeticState:
        """The ascents with these numbers (R,), after those of ``state`` have entered the pools."""
        rows, row = state.rows, torch.arange(len(state), device=state.x.device)
        lowest, place = state.heights.min(1)
        enters = (state.height > lowest).nonzero()[:, 0]
        at = (row[enters], place[enters])
        state.pool[at], state.heights[at] = state.top[enters], state.height[enters]
        state.targets[at] = state.target[enters]

        key = rng.step(rows.key, number)
        mixed, target = self._mixed(state, key)
        drawn = number < self.config.pool
        x = torch.where(column(drawn, mixed), self.threat.sample(rows.x0, key), mixed)
        return replace(
            state,
            x=x,
            momentum=torch.zeros_like(x),
            target=torch.where(drawn, self._target(rows, number), target),
            top=x.clone(),
            height=torch.full_like(state.height, -torch.inf),
        )

    def _mixed(self, state: MemeticState, key: Tensor) -> tuple[Tensor, Tensor]:
        """(mixtures of two points of the pool (R, C, H, W), the classes of the first of them (R,))."""
        x0, places = state.rows.x0, self.config.pool
        row, (channels, height, width) = torch.arange(len(x0), device=x0.device), x0.shape[1:]
        draws = rng.uniform(rng.step(key, 1), (5,)).T
        first = (draws[0] * places).long()
        second = (first + 1 + (draws[1] * (places - 1)).long()) % places
        fine = rng.uniform(rng.step(key, 2), (1, height, width))
        coarse = rng.uniform(rng.step(key, 3), (1, -(-height // BLOCK), -(-width // BLOCK)))
        coarse = coarse.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)[..., :height, :width]
        chance = torch.where(column(draws[2] < 0.5, fine), fine, coarse)
        x = torch.where(chance < column(draws[3], x0), state.pool[row, first], state.pool[row, second])
        new = rng.uniform(rng.step(key, 4), (channels, height, width)) < column(REDRAWN * draws[4], x0)
        x = torch.where(new, self.threat.sample(x0, rng.step(key, 5)), x)
        return self.threat.project_(x, x0), state.targets[row, first]

    def _target(self, rows: Rows, number: Tensor) -> Tensor:
        """(R,) classes of the first ascents with these numbers."""
        if rows.search_target is not None:
            return rows.search_target.clone()
        if not rows.clean.shape[1]:
            return torch.full_like(number, -1)
        wrong = rows.clean.scatter(1, rows.label[:, None], -torch.inf)
        rank = number % min(self.config.classes, wrong.shape[1] - 1)
        return wrong.argsort(dim=1, descending=True, stable=True).gather(1, rank[:, None])[:, 0]


def _lead(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """(R,) how far ``target`` leads the true class; where it is None or -1, the strongest wrong class."""
    strongest = logit_difference(logits, label, None)
    if target is None:
        return strongest
    return torch.where(target < 0, strongest, logit_difference(logits, label, target.clamp(min=0)))
