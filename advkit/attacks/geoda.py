"""GeoDA: a decision-based search from the original along the boundary's normal."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Rows, attack
from advkit.attacks.engine.record import column
from advkit.attacks.parts.decision import any_row
from advkit.attacks.parts.probing import ProbingAttack, ProbingState
from advkit.core import rng
from advkit.core.config import StrictModel

GROWTH = 0.6 ** (-2 / 3)
"""Factor of queries from round to round (the paper's lambda is 0.6)."""

FARTHER = 1.2
"""Factor of the distance along the normal after a failure."""

TRIES = 8
"""Failures along one normal before the boundary is probed again."""


def waves(size: int, count: int, like: Tensor) -> Tensor:
    """(size, count) the cosines of lowest frequency, orthonormal: the first columns of the DCT."""
    place = torch.arange(size, device=like.device, dtype=like.dtype)[:, None] + 0.5
    number = torch.arange(min(count, size), device=like.device, dtype=like.dtype)
    basis = torch.cos(math.pi * place * number / size)
    unit: Tensor = basis / basis.norm(dim=0)
    return unit


@attack(
    "geoda",
    summary="decisions only: from the original along the boundary's normal, estimated at low frequencies",
    source="Rahmati et al. 2020",
)
class GeoDA(ProbingAttack[ProbingState]):
    """Rahmati, Moosavi-Dezfooli, Frossard and Dai, CVPR 2020, algorithm 1, one query at a time."""

    class Config(StrictModel):
        """Parameters."""

        queries: int = Field(1000, ge=2)
        """Queries, the confirming one included."""
        probes: int = Field(30, ge=1)
        """Queries of the first estimate of the normal; each later one takes 1.4 times as many."""
        waves: int = Field(10, ge=1)
        """Frequencies along each side of the image in which the normal is estimated."""

    config: Config
    closeness = 0.01
    spread = 0.01

    def start(self, rows: Rows) -> ProbingState:
        """A random image."""
        return ProbingState(**self.started(rows))

    def probes(self, number: Tensor) -> Tensor:
        """Growing from round to round."""
        return (self.config.probes * GROWTH ** (number - 1)).floor()

    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """Random mixtures of low frequencies."""
        channels, height, width = like.shape[1:]
        down, across = (waves(side, self.config.waves, like) for side in (height, width))
        weights = rng.normal(key, (channels, down.shape[1], across.shape[1]))
        noise = (down @ weights @ across.T).contiguous()
        return noise.div_(column(noise.flatten(1).norm(dim=1), noise))

    def prepare_jump(self, state: ProbingState, ready: Tensor) -> None:
        """As far as the boundary point is: on a flat boundary, that suffices."""
        reach = self.threat.distance(state.edge, state.rows.x0)
        state.reach = torch.where(ready, reach, state.reach)
        self._query_at_reach(state, ready)

    def jump(self, state: ProbingState, hit: Tensor, jumping: Tensor) -> None:
        """Farther after a failure; from a success, a binary search toward the original."""
        if not any_row(jumping):
            return
        self.close(state, jumping & hit, state.x)
        state.reach = torch.where(jumping & ~hit, state.reach * FARTHER, state.reach)
        start = self.threat.distance(state.edge, state.rows.x0)
        lost = state.reach > start * FARTHER ** (TRIES - 0.5)
        self.probe(state, jumping & ~hit & lost)
        self._query_at_reach(state, jumping & ~hit & ~lost)

    def _query_at_reach(self, state: ProbingState, chosen: Tensor) -> None:
        x0 = state.rows.x0
        ahead = (x0 + column(state.reach, x0) * self.threat.ascent(state.normal)).clamp(0, 1)
        state.x = torch.where(column(chosen, ahead), ahead, state.x)
