"""The boundary attack: a random walk along the decision boundary toward the original."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Rows, attack
from advkit.attacks.engine.record import column
from advkit.attacks.parts.decision import DecisionAttack, DecisionState, any_row
from advkit.core import rng
from advkit.core.config import StrictModel

ASIDE, TOWARD = 2, 3
"""Phases: a step along the sphere around the original; a step from there toward the original."""

RATE = 0.1
"""Adaptation rate of the step lengths to the success rates."""


@dataclass
class BoundaryState(DecisionState):
    """The point of the walk and its step lengths."""

    edge: Tensor
    """(R, C, H, W) the point of the walk, a success."""
    aside: Tensor
    """(R,) length of a step along the sphere, as a share of the distance from the original."""
    toward: Tensor
    """(R,) length of a step toward the original, as the above."""


@attack(
    "boundary",
    summary="decisions only: a random walk along the boundary toward the original",
    source="Brendel et al. 2018",
)
class BoundaryAttack(DecisionAttack[BoundaryState]):
    """Brendel, Rauber and Bethge, ICLR 2018, from a start on the boundary.

    After every query, the step lengths adapt to the paper's target success rates: a half along the sphere and
    a quarter toward the original.
    """

    class Config(StrictModel):
        """Parameters."""

        queries: int = Field(5000, ge=2)
        """Queries, the confirming one included."""
        aside: float = Field(0.1, gt=0)
        """First step along the sphere, as a share of the distance from the original."""
        toward: float = Field(0.1, gt=0, lt=1)
        """First step toward the original, as the above."""

    config: Config
    norms = ("l2",)
    closeness = 0.01

    def start(self, rows: Rows) -> BoundaryState:
        """A random image."""
        fields = self.started(rows)
        aside, toward = (torch.full_like(fields["low"], f) for f in (self.config.aside, self.config.toward))
        return BoundaryState(**fields, edge=rows.x0.clone(), aside=aside, toward=toward)

    def move(self, state: BoundaryState, hit: Tensor, arrived: Tensor) -> None:
        """Along the sphere until that succeeds, then once toward the original."""
        aside, toward = state.phase == ASIDE, state.phase == TOWARD
        pull = RATE * (hit.float() - 0.5 * aside.float() - 0.25 * toward.float())
        state.aside = torch.where(aside, state.aside * pull.exp(), state.aside).clamp(max=1)
        state.toward = torch.where(toward, state.toward * pull.exp(), state.toward).clamp(max=0.5)
        edge = self.between(state, state.high)
        state.edge = torch.where(column(toward & hit, edge), state.x, state.edge)
        state.edge = torch.where(column(arrived, edge), edge, state.edge)
        nearer = aside & hit
        x0 = state.rows.x0
        ahead = x0 + column(1 - state.toward, x0) * (state.x - x0)
        x = torch.where(column(nearer, ahead), ahead, state.x)
        again = (aside & ~hit) | toward | arrived
        state.phase = torch.where(nearer, TOWARD, torch.where(again, ASIDE, state.phase))
        if any_row(again):
            x = torch.where(column(again, x), self._nearby_on_sphere(state), x)
        state.x = x

    def _nearby_on_sphere(self, state: BoundaryState) -> Tensor:
        """Random points near ``edge`` on the sphere through it around the original."""
        way = state.edge - state.rows.x0
        radius = way.flatten(1).norm(dim=1).clamp(min=1e-12)
        noise = rng.normal(rng.step(state.rows.key, state.iteration + 1), way.shape[1:])
        along = (noise * way).flatten(1).sum(1) / radius.square()
        noise -= column(along, way) * way
        noise *= column(state.aside * radius / noise.flatten(1).norm(dim=1).clamp(min=1e-12), noise)
        turned = way + noise
        return (state.rows.x0 + turned / column((1 + state.aside.square()).sqrt(), way)).clamp(0, 1)
