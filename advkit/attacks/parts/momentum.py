"""Sign steps along a running sum of gradients, shared by the transfer attacks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import column
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat


@dataclass
class MomentumState(State):
    """The point and velocity of each row."""

    velocity: Tensor
    """(R, C, H, W) running sum of gradients of unit size."""


class MomentumConfig(StrictModel):
    """Parameters of all of them."""

    steps: int = Field(10, ge=1)
    """Gradient steps."""
    step_size: Fraction | None = Field(None, gt=0)
    """In units of pixels; by default eps / steps, so that the last step can just reach the edge."""
    decay: float = Field(1.0, ge=0)
    """Share of the sum that is kept from step to step."""
    loss: str = "ce"
    """Loss to maximise (see `advkit ls attack-losses`)."""


class Momentum(Attack[MomentumState]):
    """Dong et al., CVPR 2018, algorithm 1; others differ in where and how the gradient is taken."""

    Config = MomentumConfig
    config: MomentumConfig
    norms = ("linf", "l2")

    def __init__(self, config: MomentumConfig, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(config.loss)
        self._step_size = config.step_size or threat.eps / config.steps

    def start(self, rows: Rows) -> MomentumState:
        """The originals, with zero velocity."""
        still = torch.zeros_like(rows.x0)
        return MomentumState(rows, rows.x0.clone(), rows.label.new_zeros(len(rows)), still)

    def step(self, state: MomentumState, oracle: Oracle) -> MomentumState:
        """One step, in place."""
        unit = self._unit_(self._gradient(state, oracle))
        velocity = state.velocity.mul_(self.config.decay).add_(unit)
        x = state.x.add_(self.threat.ascent(velocity), alpha=self._step_size)
        return MomentumState(state.rows, self.threat.project_(x, state.rows.x0), state.iteration, velocity)

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        """(R, C, H, W) the gradient to add, of any size; at ``x``, unless an attack overrides it."""
        return oracle.loss_and_grad(state.x, state.rows, self._loss)[1]

    def _unit_(self, gradient: Tensor) -> Tensor:
        """Normalised: in linf to mean size 1, as in the authors' code; in l2 to length 1."""
        if self.threat.norm == "l2":
            return self.threat.ascent_(gradient)
        size = gradient.abs().flatten(1).mean(1).clamp_(min=1e-12)
        return gradient.div_(column(size, gradient))
