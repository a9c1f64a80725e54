"""Steps of Auto-PGD in linf and l2: every value moves, with momentum, and steps are halved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.attacks.attack import Rows
from advkit.attacks.engine.record import assign_, column
from advkit.attacks.parts.apgd_schedule import APGDState, Schedule
from advkit.core import rng
from advkit.core.threat import Threat

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
        steps: of the whole schedule.
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
