"""Steps of Auto-PGD: all values move (linf, l2), or few of them in a ball that shrinks (l1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from advkit.attacks.attack import Rows, State
from advkit.attacks.engine.record import assign_, column
from advkit.attacks.parts.ascent import changed, sparse_ascent_
from advkit.core import l1_ball, rng
from advkit.core.threat import Threat


@dataclass
class APGDState(State):
    """The best point and step size of each row."""

    x_best: Tensor
    """(R, C, H, W) the point of the highest loss so far."""
    grad_best: Tensor
    """(R, C, H, W) the gradient there."""
    loss_best: Tensor
    """(R,) that loss."""
    step_size: Tensor
    """(R,) length of the next step."""
    since: Tensor
    """(R,) iterations since the last check; -1 before the first point is evaluated, which is not an iteration
    of the schedule."""


A = TypeVar("A", bound=APGDState)


class Schedule(ABC, Generic[A]):
    """Determines the steps of each row from its losses."""

    @abstractmethod
    def first(self, rows: Rows) -> Tensor:
        """(R, C, H, W) random points to start from."""

    @abstractmethod
    def begin(self, rows: Rows, x: Tensor, iteration: Tensor) -> A:
        """The initial state of rows at ``x``.

        Args:
            x: (R, C, H, W) allowed points.
            iteration: (R,) steps taken.
        """

    @abstractmethod
    def move(self, state: A, loss: Tensor, grad: Tensor) -> A:
        """Adapts the step size where a check is due, and takes a step.

        Args:
            state: its best points include ``x``; its memory is reused.
            loss: (R,) at ``x``.
            grad: (R, C, H, W) at ``x``; its memory is reused.
        """


MOMENTUM = 0.75
RISING = 0.75
"""A step size is kept while the loss rises in more than this share of the iterations between two checks."""


@dataclass
class DenseState(APGDState):
    """State that decides whether the step size is halved."""

    x_before: Tensor
    loss_before: Tensor
    loss_at_check: Tensor
    """Best loss at the last check."""
    halved: Tensor
    """(R,) bool: the last check halved the step (or there was none yet)."""
    rises: Tensor
    """Iterations since the last check in which the loss rose."""
    period: Tensor
    """Iterations between the last check and the next."""


class Dense(Schedule[DenseState]):
    """Croce and Hein, ICML 2020, algorithm 1.

    Args:
        threat: linf or l2.
    """

    def __init__(self, threat: Threat, steps: int) -> None:
        self.threat = threat
        self._first_check, self._shrink, self._shortest = (max(int(f * steps), 1) for f in (0.22, 0.03, 0.06))

    def first(self, rows: Rows) -> Tensor:
        """Noise at distance exactly eps from the original, clamped to [0, 1]."""
        shape = rows.x0.shape[1:]
        if self.threat.norm == "linf":
            noise = rng.uniform(rows.key, shape).mul_(2).sub_(1)
            length = noise.abs().flatten(1).amax(1)
        else:
            noise = rng.normal(rows.key, shape)
            length = noise.flatten(1).norm(dim=1)
        return (rows.x0 + noise * column(self.threat.eps / length, noise)).clamp_(0, 1)

    def begin(self, rows: Rows, x: Tensor, iteration: Tensor) -> DenseState:
        """The first step has twice the length of the radius."""
        zero = rows.x0.new_zeros(len(rows))
        count = torch.zeros_like(iteration)
        return DenseState(
            rows,
            x,
            iteration,
            x_best=x.clone(),
            grad_best=torch.zeros_like(x),
            loss_best=zero - torch.inf,
            step_size=zero + 2 * self.threat.eps,
            since=count - 1,
            x_before=x.clone(),
            loss_before=zero + torch.inf,
            loss_at_check=zero - torch.inf,
            halved=count == 0,
            rises=count,
            period=count + self._first_check,
        )

    def move(self, state: DenseState, loss: Tensor, grad: Tensor) -> DenseState:
        """Where the loss has stopped rising, restores the best point and halves the step. Then moves."""
        rows, x, threat = state.rows, state.x, self.threat
        first = state.since < 0
        loss_at_check = torch.where(first, loss, state.loss_at_check)
        rises, since = state.rises + (loss > state.loss_before), state.since + 1

        due = since == state.period
        stuck = (rises <= RISING * state.period) | (~state.halved & (loss_at_check >= state.loss_best))
        halve = due & stuck
        step_size = torch.where(halve, state.step_size / 2, state.step_size)
        assign_(x, halve, state.x_best)
        assign_(grad, halve, state.grad_best)

        # In place, and in this order: x + momentum * (ahead - x) + (1 - momentum) * (x - x_before).
        momentum = column(torch.where(first, 1.0, MOMENTUM), x)
        ahead = threat.ascent_(grad).mul_(column(step_size, x)).add_(x)
        moved = threat.project_(ahead, rows.x0).sub_(x).mul_(momentum).add_(x)
        moved.add_(torch.sub(x, state.x_before, out=state.x_before).mul_(1 - momentum))
        return DenseState(
            rows,
            threat.project_(moved, rows.x0),
            state.iteration,
            x_best=state.x_best,
            grad_best=state.grad_best,
            loss_best=state.loss_best,
            step_size=step_size,
            since=torch.where(due, 0, since),
            x_before=x,
            loss_before=loss,
            loss_at_check=torch.where(due, state.loss_best, loss_at_check),
            halved=torch.where(due, halve, state.halved),
            rises=torch.where(due, 0, rises),
            period=torch.where(due, (state.period - self._shrink).clamp(min=self._shortest), state.period),
        )


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
