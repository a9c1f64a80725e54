"""Projected gradient descent (ascent on the loss)."""

from __future__ import annotations

from pydantic import Field

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.oracle import Oracle
from advkit.config import Fraction, StrictModel
from advkit.threat import Threat


@attack(
    "pgd", summary="gradient steps of fixed size, projected back into the ball", source="Madry et al. 2018"
)
class PGD(Attack):
    """Each step adds step_size times the steepest direction and projects; the start is random in the ball."""

    class Config(StrictModel):
        """Parameters."""

        steps: int = Field(40, ge=1)
        """Gradient steps per start."""
        step_size: Fraction | None = Field(None, gt=0)
        """In units of pixels; by default 2.5 * eps / steps, which can cross the ball (Madry et al. 2018)."""
        restarts: int = Field(1, ge=1)
        """Starts per image; later ones only where the earlier failed."""
        random_start: bool = True
        """Begin at a random point of the ball rather than at the original."""
        loss: str = "ce"
        """What to climb (see `advkit ls attack-losses`)."""

    config: Config
    norms = ("linf", "l2")

    def __init__(self, config: Config, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(config.loss)
        self._step_size = config.step_size or 2.5 * threat.eps / config.steps

    def start(self, rows: Rows) -> State:
        """A random point of the ball, or the original."""
        x = self.threat.sample(rows.x0, rows.key) if self.config.random_start else rows.x0.clone()
        return State(rows, x, rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """One gradient step, in the memory of the last."""
        rows = state.rows
        _, grad, _ = oracle.loss_and_grad(state.x, rows, self._loss)
        x = state.x.add_(self.threat.ascent_(grad), alpha=self._step_size)
        return State(rows, self.threat.project_(x, rows.x0), state.iteration)
