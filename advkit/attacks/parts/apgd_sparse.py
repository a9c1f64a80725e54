"""Steps of Auto-PGD in l1: few values move, and the ball shrinks to its size in three phases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.attacks.attack import Rows
from advkit.attacks.engine.record import assign_, column
from advkit.attacks.parts.apgd_schedule import APGDState, Schedule
from advkit.attacks.parts.sparse import changed, sparse_ascent_
from advkit.core import l1_ball, rng
from advkit.core.threat import Threat

SPARSER = 0.95
"""Where the number of changed values falls below this share of that at the last check, the row returns to
its best point and to the full step size."""
SLOWER = 1.5
"""Divisor of the step size at the other checks."""
SHORTEST = 0.1
"""Shortest step, as a share of the radius."""
FIRST = 0.2
"""Share of all values that the first steps move."""
DENSER = 1.5
"""Ratio of the values changed to those that a step moves."""


@dataclass
class SparseState(APGDState):
    """State that decides how many values move."""

    radius: Tensor
    """(R,) of the ball of the row's phase."""
    period: Tensor
    """(R,) iterations from one check to the next."""
    count: Tensor
    """(R,) values changed, at the last check; `DENSER` times as many as a step moves."""


class Sparse(Schedule[SparseState]):
    """Croce and Hein, ICML 2021, algorithm 1 and section 3.2 (multi-epsilon).

    The first 30 % of the steps are taken in a ball of three times the radius and the next 30 % in one of
    twice; each phase starts from the best point of the last, projected. Two things differ from the reference
    implementation and find more adversarial examples: the first steps move a fifth of the values, as in
    algorithm 1, rather than a number derived from the random start; and values at the edge of the box are
    not chosen to move out of it.

    Args:
        threat: l1.
        steps: of the whole schedule.
        lead: steps of a row before the schedule begins.
    """

    def __init__(self, threat: Threat, steps: int, lead: int = 0) -> None:
        wide = min(-(-3 * steps // 10), (steps - 1) // 2)
        self.threat, self._lead, self._ends = threat, lead, (lead + wide, lead + 2 * wide)
        self._wide, self._last = (max(int(0.04 * length), 1) for length in (wide, steps - 2 * wide))

    def first(self, rows: Rows) -> Tensor:
        """Gaussian noise, projected."""
        noise = rng.normal(rows.key, rows.x0.shape[1:])
        radius = self._radius(self._phase(torch.zeros_like(rows.label)))
        return l1_ball.project_(noise.add_(rows.x0), rows.x0, radius)

    def begin(self, rows: Rows, x: Tensor, iteration: Tensor) -> SparseState:
        """The first step of a phase has the length of its radius."""
        phase = self._phase(iteration)
        radius = self._radius(phase)
        many = torch.full_like(radius, FIRST * DENSER * x[0].numel())
        return SparseState(
            rows,
            x,
            iteration,
            x_best=x.clone(),
            grad_best=torch.zeros_like(x),
            loss_best=torch.full_like(radius, -torch.inf),
            step_size=radius,
            since=torch.full_like(iteration, -1),
            radius=radius,
            period=torch.where(phase < 2, self._wide, self._last),
            count=torch.where(iteration <= self._lead, many, changed(x, rows.x0)),
        )

    def move(self, state: SparseState, loss: Tensor, grad: Tensor) -> SparseState:
        """Adapts the number of values that move where a check is due, moves them, and ends phases."""
        rows, x, radius = state.rows, state.x, state.radius
        since = state.since + 1
        due = since == state.period
        count = torch.where(due, changed(state.x_best, rows.x0), state.count)
        sparser = due & (count / state.count < SPARSER)
        slower = torch.where(due, (state.step_size / SLOWER).maximum(SHORTEST * radius), state.step_size)
        step_size = torch.where(sparser, radius, slower)
        assign_(x, sparser, state.x_best)
        assign_(grad, sparser, state.grad_best)
        step = sparse_ascent_(grad, x, count / DENSER / x[0].numel())
        moved = l1_ball.project_(x.addcmul_(step, column(step_size, x)), rows.x0, radius)
        after = SparseState(
            rows,
            moved,
            state.iteration,
            x_best=state.x_best,
            grad_best=state.grad_best,
            loss_best=state.loss_best,
            step_size=step_size,
            since=torch.where(due, 0, since),
            radius=radius,
            period=state.period,
            count=count,
        )
        return self._next_phase(after)

    def _next_phase(self, state: SparseState) -> SparseState:
        """Starts the next phase in rows whose next iteration belongs to it."""
        iteration = state.iteration + 1
        ends = (iteration == self._ends[0]) | (iteration == self._ends[1])
        if ends.device.type == "cpu" and not ends.any():
            return state
        radius = self._radius(self._phase(iteration))
        x = l1_ball.project_(state.x_best.clone(), state.rows.x0, radius)
        fresh = self.begin(state.rows, x, iteration)
        fresh.iteration = state.iteration
        return fresh.where(ends, state)

    def _phase(self, iteration: Tensor) -> Tensor:
        return (iteration >= self._ends[0]).long() + (iteration >= self._ends[1]).long()

    def _radius(self, phase: Tensor) -> Tensor:
        return (3 - phase) * self.threat.eps
