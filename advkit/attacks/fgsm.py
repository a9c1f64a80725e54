"""The fast gradient sign method, and its counterparts in other norms."""

from __future__ import annotations

from pydantic import Field

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.losses.ce import ce
from advkit.core.config import StrictModel


@attack("fgsm", summary="one gradient step to the edge of the ball", source="Goodfellow et al. 2015")
class FGSM(Attack[State]):
    """x0 + eps * sign(gradient of the cross-entropy); in l2 the normalised gradient."""

    norms = ("linf", "l2")

    @property
    def steps(self) -> int:
        """One."""
        return 1

    def start(self, rows: Rows) -> State:
        """The original."""
        return State(rows, rows.x0, rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """The one step."""
        rows = state.rows
        _, grad, _ = oracle.loss_and_grad(state.x, rows, ce)
        x = self.threat.project(state.x + self.threat.eps * self.threat.ascent(grad), rows.x0)
        return State(rows, x, state.iteration)


@attack(
    "r-fgsm",
    summary="one gradient step from a random point of the ball",
    source="Wong et al. 2020, after Tramer et al. 2018",
)
class RFGSM(FGSM):
    """Wong, Rice and Kolter, ICLR 2020, algorithm 3: uniform in the ball, then a step of 1.25 eps, projected.

    (Tramer et al., ICLR 2018, who introduced the random start, start at a corner of half the ball and step
    the other half.)
    """

    class Config(StrictModel):
        step: float = Field(1.25, gt=0)
        """Length of the step, in units of eps."""
        restarts: int = Field(1, ge=1)
        """Starts per image; later ones only where the earlier failed."""

    config: Config

    def start(self, rows: Rows) -> State:
        """A random point of the ball."""
        return State(rows, self.threat.sample(rows.x0, rows.key), rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """The one step, in place."""
        _, grad, _ = oracle.loss_and_grad(state.x, state.rows, ce)
        x = state.x.add_(self.threat.ascent_(grad), alpha=self.config.step * self.threat.eps)
        return State(state.rows, self.threat.project_(x, state.rows.x0), state.iteration)
