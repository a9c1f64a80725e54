"""HopSkipJump: decision-based jumps along the estimated normal of the boundary."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Rows, attack
from advkit.attacks.engine.record import column
from advkit.attacks.parts.decision import any_row
from advkit.attacks.parts.probing import ProbingAttack, ProbingState
from advkit.core import rng
from advkit.core.config import StrictModel

SHORTEST = 2.0**-12
"""A jump shorter than this share of the distance from the original ends; the boundary is probed again."""


@attack(
    "hop-skip-jump",
    summary="decisions only: estimates the boundary's normal, jumps along it, searches the boundary again",
    source="Chen et al. 2020",
    aliases=("hsja",),
)
class HopSkipJump(ProbingAttack[ProbingState]):
    """Chen, Jordan and Wainwright, IEEE S&P 2020, algorithm 2, one query at a time."""

    class Config(StrictModel):
        """Parameters."""

        queries: int = Field(1000, ge=2)
        """Queries, the confirming one included."""
        probes: int = Field(50, ge=1)
        """Queries of the first estimate of the normal; the t-th takes sqrt(t) times as many. The paper has
        100; with few queries, more and shorter rounds find nearer successes."""

    config: Config
    closeness = 0.01
    spread = 0.01

    def start(self, rows: Rows) -> ProbingState:
        """A random image."""
        return ProbingState(**self.started(rows))

    def probes(self, number: Tensor) -> Tensor:
        """Proportional to the root of the round's number."""
        return (self.config.probes * number.sqrt()).floor()

    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """Of the sphere; in linf of the cube, as in the paper."""
        if self.threat.norm == "linf":
            noise = rng.uniform(key, like.shape[1:]).mul_(2).sub_(1)
        else:
            noise = rng.normal(key, like.shape[1:])
        return noise.div_(column(noise.flatten(1).norm(dim=1), noise))

    def prepare_jump(self, state: ProbingState, ready: Tensor) -> None:
        """The distance of the original, divided by the root of the round's number."""
        reach = self.threat.distance(state.edge, state.rows.x0) / state.round.clamp(min=1).sqrt()
        state.reach = torch.where(ready, reach, state.reach)
        self._jump(state, ready)

    def jump(self, state: ProbingState, hit: Tensor, jumping: Tensor) -> None:
        """Half as far after a failure; from a success, a binary search toward the original."""
        if not any_row(jumping):
            return
        self.close(state, jumping & hit, state.x)
        state.reach = torch.where(jumping & ~hit, state.reach / 2, state.reach)
        short = state.reach < SHORTEST * self.threat.distance(state.edge, state.rows.x0)
        self.probe(state, jumping & ~hit & short)
        self._jump(state, jumping & ~hit & ~short)

    def _jump(self, state: ProbingState, chosen: Tensor) -> None:
        ahead = state.edge + column(state.reach, state.edge) * self.threat.ascent(state.normal)
        state.x = torch.where(column(chosen, ahead), ahead.clamp(0, 1), state.x)
