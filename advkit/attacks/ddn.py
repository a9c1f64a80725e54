"""The decoupled direction and norm attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.loss import log_odds
from advkit.attacks.parts.balls import annealed, fill_, length
from advkit.core import rng
from advkit.core.config import StrictModel


@dataclass
class DDNState(State):
    """The sphere of each row."""

    radius: Tensor
    """(R,) of the sphere of ``x``, before clamping."""
    farthest: Tensor
    """(R,) distance of the farthest corner of the box."""


@attack(
    "ddn",
    summary="gradient steps on a sphere that shrinks on success and grows on failure",
    source="Rony et al. 2019",
)
class DDN(Attack[DDNState]):
    """Rony et al., CVPR 2019, algorithm 1, without its rounding to 8-bit levels.

    The loss determines the direction; success and failure determine the norm.
    """

    class Config(StrictModel):
        steps: int = Field(100, ge=1)
        """Gradient steps."""
        gamma: float = Field(0.05, gt=0, lt=1)
        """Relative change of the radius in each step."""
        first_radius: float = Field(1.0, gt=0)
        """Radius of the first sphere."""

    config: Config
    norms = ("l2",)
    minimal = True

    def start(self, rows: Rows) -> DDNState:
        """The originals."""
        farthest = self.threat.distance((rows.x0 < 0.5).to(rows.x0.dtype), rows.x0)
        iteration = rows.label.new_zeros(len(rows))
        radius = torch.full_like(farthest, self.config.first_radius)
        return DDNState(rows, rows.x0.clone(), iteration, radius, farthest)

    def step(self, state: DDNState, oracle: Oracle) -> DDNState:
        """Evaluates ``x``, takes an ascent step and moves to the next sphere."""
        rows, config = state.rows, self.config
        _, grad, logits = oracle.loss_and_grad(state.x, rows, log_odds)
        won = margin_of(logits, rows) > 0
        direction = _direction(grad, state)
        radius = state.radius * torch.where(won, 1 - config.gamma, 1 + config.gamma)
        radius = torch.minimum(radius, state.farthest)
        size = annealed(state.iteration, config.steps, 1.0, 0.01)
        x = state.x.addcmul_(direction, column(size, direction))
        return DDNState(rows, fill_(x, rows.x0, radius, "l2"), state.iteration, radius, state.farthest)


def _direction(gradient: Tensor, state: State) -> Tensor:
    """The normalised gradient, or a random vector where the gradient is zero. The random vector is far longer
    than 1, so that the next point of the sphere is a new one."""
    size = length(gradient)
    flat = size <= 1e-12
    direction = gradient.div_(column(size, gradient))
    if gradient.device.type == "cpu" and not flat.any():
        return direction
    random = rng.normal(rng.step(state.rows.key, state.iteration), gradient.shape[1:])
    return torch.where(column(flat, gradient), random, direction)
