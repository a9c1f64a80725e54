"""Random noise, a baseline without search."""

from __future__ import annotations

from pydantic import Field

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.core import rng
from advkit.core.config import StrictModel


@attack("noise", summary="random points of the ball, no gradients", source="baseline")
class Noise(Attack[State]):
    """Draws points from the ball and keeps a success."""

    class Config(StrictModel):
        draws: int = Field(10, ge=2)
        """Points per image."""

    config: Config
    access = "none"

    @property
    def steps(self) -> int:
        """The last draw is evaluated as the row ends."""
        return self.config.draws - 1

    def start(self, rows: Rows) -> State:
        """The first draw."""
        return State(rows, self.threat.sample(rows.x0, rows.key), rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """Evaluates this draw and makes the next."""
        oracle.query(state.x)
        key = rng.step(state.rows.key, state.iteration + 1)
        return State(state.rows, self.threat.sample(state.rows.x0, key), state.iteration)
