"""The fast gradient sign method, and its counterparts in other norms."""

from __future__ import annotations

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.losses.ce import ce


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
