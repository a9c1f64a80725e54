"""Square Attack: random windows, kept where they lower the margin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import assign_, revise_
from advkit.attacks.losses.margin import margin
from advkit.attacks.parts.square_proposals import LinfProposals, MassProposals
from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.core.threat import Threat

FULL, AHEAD = 128, 16
"""Size of a pass that few rows fill with several proposals each, and how many a row at most: proposals after
an accepted one are wasted, and about one in twenty is accepted."""


@dataclass
class SquareState(State):
    """``x`` is the best point, initially the start."""

    score: Tensor
    """(R,) its margin."""
    limits: Tensor
    """Limits of each original, for the proposals."""


@attack("square", summary="random square windows, kept where they help", source="Andriushchenko et al. 2020")
class Square(Attack[SquareState]):
    """Andriushchenko et al., ECCV 2020; the parameters are those of the reference AutoAttack.

    Windows and signs are drawn per row. The loss is the margin, toward the target class if there is one.
    """

    class Config(StrictModel):
        queries: int = Field(5000, ge=1)
        """Queries per start."""
        p: float = Field(0.8, gt=0, le=1)
        """Share of the pixels that the first windows cover; it halves after 10, 50, 200, 500, 1000, 2000,
        4000, 6000 and 8000 queries."""
        restarts: int = Field(1, ge=1)
        """Starts per image; later ones only where the earlier failed."""

    config: Config
    norms = ("linf", "l2", "l1")
    access = "scores"

    def __init__(self, config: Config, threat: Threat) -> None:
        super().__init__(config, threat)
        self._made: dict[tuple[int, ...], LinfProposals | MassProposals] = {}

    def start(self, rows: Rows) -> SquareState:
        """Stripes (linf) or tiles of bumps (l2, l1)."""
        moves = self._moves(rows.x0)
        x = moves.first(rows.x0, rows.key)
        lowest = torch.full_like(x[:, 0, 0, 0], -torch.inf)
        return SquareState(rows, x, rows.label.new_zeros(len(rows)), lowest, moves.limits(rows.x0))

    def step(self, state: SquareState, oracle: Oracle) -> SquareState:
        """Makes proposals and keeps the first of a larger margin; few rows make several at once.

        A proposal that changes nothing is rejected without a pass.
        """
        rows, best = state.rows, state.x
        ahead = 1 if oracle.box is not None else max(1, min(AHEAD, FULL // len(rows)))
        query = state.iteration[:, None] + torch.arange(ahead, device=best.device)
        key = rng.step(rows.key[:, None], query)
        x = self._moves(best).next(best, state.limits, key, query)
        first_step = state.iteration == 0
        assign_(x[:, 0], first_step, best)
        asked = (x != best[:, None]).flatten(2).any(2) & (query < self.config.queries)
        asked[:, 0] |= first_step
        moved = state.iteration + ahead - 1  # the engine adds one
        if best.device.type == "cpu" and not asked.any():
            return replace(state, iteration=moved)
        better, first, score = oracle.first_better(x, asked, rows, margin, state.score)
        revise_((best, state.score), better, _picked, first, x, score)
        return replace(state, iteration=state.iteration + first)

    def _moves(self, x: Tensor) -> LinfProposals | MassProposals:
        shape = tuple(x.shape[1:])
        if shape not in self._made:
            make = LinfProposals if self.threat.norm == "linf" else MassProposals
            self._made[shape] = make(self.config.p, self.threat, shape)
        return self._made[shape]


def _picked(which: Tensor, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of ``x`` (R, M, ...) the entry ``which`` (R,)."""
    return x[torch.arange(len(which), device=which.device), which], score
