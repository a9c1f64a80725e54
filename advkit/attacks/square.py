"""Square Attack: random windows, kept where they lower the margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit import rng
from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.losses.margin import margin
from advkit.attacks.oracle import Oracle
from advkit.attacks.record import assign_
from advkit.attacks.square_linf import Paint
from advkit.attacks.square_mass import Bumps
from advkit.config import StrictModel
from advkit.threat import Threat


@dataclass
class SquareState(State):
    """``x`` is the proposal."""

    best: Tensor
    """(R, C, H, W) the last proposal that was kept."""
    score: Tensor
    """(R,) its margin."""


@attack("square", summary="random square windows, kept where they help", source="Andriushchenko et al. 2020")
class Square(Attack):
    """Andriushchenko et al., ECCV 2020; the numbers are those of the reference AutoAttack.

    Windows and signs are drawn for each row. The loss is the margin, toward the goal where there is one.
    """

    class Config(StrictModel):
        """Parameters."""

        queries: int = Field(5000, ge=1)
        """Points shown to the model per start."""
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
        self._made: dict[tuple[int, ...], Paint | Bumps] = {}

    @property
    def steps(self) -> int:
        """One query each."""
        return self.config.queries

    def start(self, rows: Rows) -> SquareState:
        """Stripes (linf) or tiles of bumps (l2, l1)."""
        x = self._moves(rows.x0).first(rows.x0, rows.key)
        count = rows.label.new_zeros(len(rows))
        return SquareState(rows, x, count, best=x.clone(), score=torch.full_like(x[:, 0, 0, 0], -torch.inf))

    def step(self, state: State, oracle: Oracle) -> SquareState:
        """Judges the proposal, keeps it if the margin is better, and makes the next."""
        assert isinstance(state, SquareState)
        rows, x = state.rows, state.x
        score = margin(oracle.logits(x), rows.label, rows.aim)
        better = score > state.score
        best = assign_(state.best, better, x)
        score = torch.where(better, score, state.score)
        key = rng.step(rows.key, state.iteration + 1)
        proposal = self._moves(x).next(best, rows.x0, key, state.iteration + 1)
        return SquareState(rows, proposal, state.iteration, best=best, score=score)

    def _moves(self, x: Tensor) -> Paint | Bumps:
        shape = tuple(x.shape[1:])
        if shape not in self._made:
            make = Paint if self.threat.norm == "linf" else Bumps
            self._made[shape] = make(self.config.p, self.threat, shape)
        return self._made[shape]
