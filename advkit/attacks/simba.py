"""SimBA: one coordinate at a time, up or down, kept where it helps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import assign_
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.core import rng
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat


@dataclass
class SimBAState(State):
    """``x`` is the original at first, then a proposal."""

    best: Tensor
    """(R, C, H, W) the last point that was kept."""
    score: Tensor
    """(R,) its loss."""
    order: Tensor
    """(R, D) the order of the coordinates; after the last, it starts again."""
    tried: Tensor
    """(R,) number of finished coordinates."""
    down: Tensor
    """(R,) bool: the proposal is the negative step, since the positive one failed."""


@attack(
    "simba",
    summary="one coordinate (a pixel or a cosine) at a time, kept if it helps",
    source="Guo et al. 2019",
)
class SimBA(Attack[SimBAState]):
    """Guo, Gardner, You, Wilson and Weinberger, "Simple Black-box Adversarial Attacks", ICML 2019.

    Coordinates are pixels or basis vectors of the discrete cosine transform, in a random order per row,
    without repetition. Proposals outside the ball are projected.
    """

    class Config(StrictModel):
        queries: int = Field(5000, ge=1)
        """Queries per start; the first is the original."""
        basis: Literal["pixel", "dct"] = "dct"
        """Coordinates: single values, or cosines over the whole image in one channel."""
        share: float = Field(0.5, gt=0, le=1)
        """Share of the cosines along each side, lowest frequencies first; all pixels are used."""
        step_size: Fraction | None = Field(None, gt=0)
        """Along a coordinate, in units of pixels; by default a tenth of eps in l2; in linf eps for a
        pixel, and a cosine of mean square (eps / 10) ** 2."""
        restarts: int = Field(1, ge=1)
        """Starts per image, with other orders; later ones only where the earlier failed."""
        loss: str = "margin"
        """Loss to maximise (see `advkit ls attack-losses`)."""

    config: Config
    norms = ("linf", "l2")
    access = "scores"

    def __init__(self, config: Config, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(config.loss)
        self._bases: dict[tuple[int, torch.device], Tensor] = {}

    def start(self, rows: Rows) -> SimBAState:
        """The original, and a random order."""
        channels, height, width = rows.x0.shape[1:]
        size = channels * self._count(height) * self._count(width)
        count = rows.label.new_zeros(len(rows))
        return SimBAState(
            rows,
            rows.x0,
            count,
            best=rows.x0.clone(),
            score=torch.full_like(rows.x0[:, 0, 0, 0], -torch.inf),
            order=rng.uniform(rows.key, (size,)).argsort(1),
            tried=count,
            down=count > 0,
        )

    def step(self, state: SimBAState, oracle: Oracle) -> SimBAState:
        """Evaluates the proposal and makes the next: the negative step if the positive failed, else the next
        coordinate."""
        rows, first = state.rows, state.iteration == 0
        score = self._loss(oracle.logits(state.x), rows.label, rows.search_target)
        better = score > state.score
        assign_(state.best, better, state.x)
        state.score = torch.where(better, score, state.score)
        done = (better | state.down) & ~first
        state.tried = state.tried + done
        state.down = ~done & ~first
        state.x = self._moved(state)
        return state

    def _moved(self, state: SimBAState) -> Tensor:
        _, channels, height, width = state.x.shape
        slow = self._count(width)
        place = (state.tried % state.order.shape[1])[:, None]
        coordinate = state.order.gather(1, place)[:, 0]
        waves, across = coordinate // slow, coordinate % slow
        channel, along = waves // self._count(height), waves % self._count(height)
        size = self.config.step_size or self._reach(height * width)
        one = torch.where(state.down, -size, size)[:, None] * (
            channel[:, None] == torch.arange(channels, device=channel.device)
        )
        rows = self._basis(height, state.x)[along][:, None, :, None] * one[..., None, None]
        x = torch.addcmul(state.best, rows, self._basis(width, state.x)[across][:, None, None])
        return self.threat.project_(x, state.rows.x0)

    def _reach(self, pixels: int) -> float:
        if self.threat.norm == "l2":
            return self.threat.eps / 10
        return self.threat.eps * (1.0 if self.config.basis == "pixel" else pixels**0.5 / 10)

    def _count(self, side: int) -> int:
        return max(round(side * self.config.share), 1) if self.config.basis == "dct" else side

    def _basis(self, side: int, like: Tensor) -> Tensor:
        """(S, S) orthonormal rows: the unit vectors, or cosines by increasing frequency."""
        if (side, like.device) not in self._bases:
            basis = torch.eye(side) if self.config.basis == "pixel" else cosines(side)
            self._bases[side, like.device] = basis.to(like.device)
        return self._bases[side, like.device]


def cosines(side: int) -> Tensor:
    """(S, S) the discrete cosine transform of the second kind, orthonormal; a row for each frequency."""
    frequency, place = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side) + 0.5
    waves: Tensor = torch.cos(math.pi / side * frequency * place) * (2 / side) ** 0.5
    waves[0] /= 2**0.5
    return waves.float()
