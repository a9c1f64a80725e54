"""Sign-OPT: sign-based descent on the distance to the boundary as a function of the direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Rows, attack
from advkit.attacks.engine.record import column
from advkit.attacks.parts.decision import any_row
from advkit.attacks.parts.probing import JUMP, ProbingAttack, ProbingState
from advkit.core import rng
from advkit.core.config import StrictModel

FIRST, SHORTEST = 0.2, 2.0**-10
"""First and smallest step of the line search, as a share of the distance."""


@dataclass
class SignOptState(ProbingState):
    """The line search of each round."""

    base: Tensor
    """(R, C, H, W) the boundary point at which it started."""
    better: Tensor
    """(R,) bool: it has found a nearer point."""


@attack(
    "sign-opt",
    summary="decisions only: descent on the distance to the boundary over directions, by signs",
    source="Cheng et al. 2020",
)
class SignOpt(ProbingAttack[SignOptState]):
    """Cheng, Singh, Chen, Chen, Liu and Hsieh, ICLR 2020, algorithm 1, one query at a time.

    A probe has the distance of the best point and another direction: if it is a success, the boundary is
    nearer there. The line search doubles its step while the boundary gets nearer.
    """

    class Config(StrictModel):
        """Parameters."""

        queries: int = Field(1000, ge=2)
        """Queries, the confirming one included."""
        probes: int = Field(100, ge=1)
        """Queries of each estimate of the gradient."""

    config: Config
    norms = ("l2",)
    closeness = 0.01
    spread = 0.01

    def start(self, rows: Rows) -> SignOptState:
        """A random image."""
        fields = self.started(rows)
        fields["reach"] = torch.full_like(fields["reach"], FIRST)
        return SignOptState(**fields, base=rows.x0.clone(), better=torch.zeros_like(rows.label).bool())

    def probes(self, number: Tensor) -> Tensor:
        """Constant."""
        return torch.full_like(number, self.config.probes)

    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """Of the sphere."""
        noise = rng.normal(key, like.shape[1:])
        return noise.div_(column(noise.flatten(1).norm(dim=1), noise))

    def placed(self, state: SignOptState, x: Tensor) -> Tensor:
        """At the distance of ``edge`` from the original, in the direction of ``x``."""
        x0 = state.rows.x0
        way, radius = x - x0, (state.edge - x0).flatten(1).norm(dim=1)
        return x0 + column(radius / way.flatten(1).norm(dim=1).clamp(min=1e-12), way) * way

    def probe(self, state: SignOptState, chosen: Tensor) -> None:
        """Starts a round at ``edge``."""
        super().probe(state, chosen)
        state.base = torch.where(column(chosen, state.edge), state.edge, state.base)
        state.better = state.better & ~chosen

    def prepare_jump(self, state: SignOptState, ready: Tensor) -> None:
        """The step with which the last line search ended."""
        self._step_aside(state, ready)

    def jump(self, state: SignOptState, hit: Tensor, jumping: Tensor) -> None:
        """From a success, a binary search toward the original; after a failure, a shorter step or a round."""
        if not any_row(jumping):
            return
        self.close(state, jumping & hit, state.x)
        failed = jumping & ~hit
        state.reach = torch.where(failed & state.better, state.reach / 2, state.reach)
        state.reach = torch.where(failed & ~state.better, state.reach / 4, state.reach)
        lost = state.reach < SHORTEST
        self._step_aside(state, failed & ~state.better & ~lost)
        ended = failed & (state.better | lost)
        state.reach = torch.where(ended & lost, FIRST, state.reach)
        self.probe(state, ended)

    def arrive(self, state: SignOptState, arrived: Tensor) -> Tensor:
        """Doubles the step of a line search that found a nearer point."""
        nearer = arrived & (state.round > 0)
        if any_row(nearer):
            edge = self.between(state, state.high)
            state.edge = torch.where(column(nearer, edge), edge, state.edge)
            state.better = state.better | nearer
            state.reach = torch.where(nearer, state.reach * 2, state.reach)
            state.phase = torch.where(nearer, JUMP, state.phase)
            self._step_aside(state, nearer)
        return arrived & ~nearer

    def _step_aside(self, state: SignOptState, chosen: Tensor) -> None:
        """Queries at the distance of ``edge`` in the direction of a step from ``base``."""
        length = state.reach * (state.base - state.rows.x0).flatten(1).norm(dim=1)
        x = self.placed(state, state.base + column(length, state.base) * state.normal).clamp(0, 1)
        state.x = torch.where(column(chosen, x), x, state.x)
