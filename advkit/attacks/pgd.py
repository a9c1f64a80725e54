"""Projected gradient descent (ascent on the loss)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import column
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.parts.ascent import STEPS, diversified, steepest_
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat


@attack(
    "pgd", summary="gradient steps of fixed size, projected back into the ball", source="Madry et al. 2018"
)
class PGD(Attack[State]):
    """Each step adds step_size times the steepest direction and projects; the start is random in the ball.

    In l1 the steepest direction would move one value only, up to the box: a share of the values moves
    instead, by equal amounts (Tramer and Boneh, NeurIPS 2019). Auto-PGD adapts this share and is stronger.
    """

    class Config(StrictModel):
        steps: int = Field(40, ge=1)
        """Gradient steps per start."""
        step_size: Fraction | None = Field(None, gt=0)
        """In units of pixels; by default 2.5 * eps / steps, which can cross the ball (Madry et al. 2018)."""
        restarts: int = Field(1, ge=1)
        """Starts per image; later ones only where the earlier failed."""
        start: Literal["noise", "original", "diversified"] = "noise"
        """A random point of the ball; the image itself; or two more steps, from noise along a random
        direction of the logits (Tashiro et al. 2020), so that restarts reach different classes."""
        loss: str = "ce"
        """Loss to maximise (see `advkit ls attack-losses`)."""
        samples: int = Field(1, ge=1)
        """Gradients to average in each step (EOT), for randomised models."""
        share: float = Field(0.01, gt=0, le=1)
        """l1 only: share of the values that a step moves, those with the largest gradients."""

    config: Config
    norms = ("linf", "l2", "l1")

    def __init__(self, config: Config, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(config.loss)
        self._step_size = config.step_size or 2.5 * threat.eps / config.steps
        self._lead = STEPS if config.start == "diversified" else 0

    @property
    def steps(self) -> int:
        """Those of the initialisation, and ``config.steps``."""
        return self._lead + self.config.steps

    def start(self, rows: Rows) -> State:
        """A random point of the ball, or the original."""
        still = self.config.start == "original"
        x = rows.x0.clone() if still else self.threat.sample(rows.x0, rows.key)
        return State(rows, x, rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """One gradient step, in place."""
        rows, loss = state.rows, self._loss
        if self._lead:
            loss = diversified(loss, rows.key, state.iteration)
        _, grad, _ = oracle.loss_and_grad(state.x, rows, loss, samples=self.config.samples)
        move = steepest_(grad, state.x, self.threat, self.config.share)
        if self._lead:
            size = torch.where(state.iteration < self._lead, self.threat.eps, self._step_size)
            x = state.x.addcmul_(move, column(size, move))
        else:
            x = state.x.add_(move, alpha=self._step_size)
        return State(rows, self.threat.project_(x, rows.x0), state.iteration)
