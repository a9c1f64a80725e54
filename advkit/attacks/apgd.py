"""Auto-PGD: gradient ascent with momentum that halves its step where the loss stops rising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from advkit import rng
from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.oracle import Oracle
from advkit.attacks.record import column
from advkit.config import StrictModel
from advkit.threat import Threat

MOMENTUM = 0.75
RISING = 0.75
"""A step size is kept while the loss rises in more than this share of the iterations between two checks."""


@dataclass
class APGDState(State):
    """Everything but ``x`` and ``iteration`` belongs to the schedule of step sizes."""

    x_before: Tensor
    x_best: Tensor
    grad_best: Tensor
    loss_best: Tensor
    loss_before: Tensor
    loss_at_check: Tensor
    """Best loss at the last check."""
    step_size: Tensor
    halved: Tensor
    """(R,) bool: the last check halved the step (or there was none yet)."""
    rises: Tensor
    """Iterations since the last check in which the loss rose."""
    since: Tensor
    """Iterations since the last check."""
    period: Tensor
    """Iterations between the last check and the next."""


class APGDConfig(StrictModel):
    """What all forms of the attack have in common."""

    steps: int = Field(100, ge=1)
    """Gradient steps per start and target."""
    restarts: int = Field(1, ge=1)
    """Starts per image and target; later ones only where the earlier failed."""
    samples: int = Field(1, ge=1)
    """Gradients to average in each step (EOT), for models that draw random numbers."""


@attack(
    "apgd",
    summary="Auto-PGD on any loss, away from the label or toward several classes",
    source="Croce and Hein 2020",
)
class APGD(Attack):
    """Croce and Hein, ICML 2020, algorithm 1; the numbers are the reference implementation's."""

    class Config(APGDConfig):
        """Parameters."""

        loss: str = "margin"
        """What to climb (see `advkit ls attack-losses`)."""
        targets: int = Field(0, ge=0)
        """Wrong classes to aim at, the likeliest first; 0: away from the label."""

    config: APGDConfig
    norms = ("linf", "l2")
    loss_name: ClassVar[str | None] = None
    """The loss of forms of the attack that have a fixed one."""

    def __init__(self, config: APGDConfig, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(self.loss_name or config.loss)  # type: ignore[attr-defined]
        n = config.steps
        self._first_check, self._shrink, self._shortest = (max(int(f * n), 1) for f in (0.22, 0.03, 0.06))

    def start(self, rows: Rows) -> APGDState:
        """Noise at distance exactly eps from the original, clamped to [0, 1]."""
        shape = rows.x0.shape[1:]
        if self.threat.norm == "linf":
            noise = rng.uniform(rows.key, shape).mul_(2).sub_(1)
            length = noise.abs().flatten(1).amax(1)
        else:
            noise = rng.normal(rows.key, shape)
            length = noise.flatten(1).norm(dim=1)
        x = (rows.x0 + noise * column(self.threat.eps / length, noise)).clamp_(0, 1)
        zero = rows.x0.new_zeros(len(rows))
        count = rows.label.new_zeros(len(rows))
        return APGDState(
            rows,
            x,
            count,
            x_before=x,
            x_best=x,
            grad_best=torch.zeros_like(x),
            loss_best=zero - torch.inf,
            loss_before=zero + torch.inf,
            loss_at_check=zero - torch.inf,
            step_size=zero + 2 * self.threat.eps,
            halved=count == 0,
            rises=count,
            since=count - 1,  # the start is judged too, but is no iteration of the schedule
            period=count + self._first_check,
        )

    def step(self, state: State, oracle: Oracle) -> APGDState:
        """Judges ``x``, settles the step size where a check is due, and moves."""
        assert isinstance(state, APGDState)
        rows, x = state.rows, state.x
        loss, grad, _ = oracle.loss_and_grad(x, rows, self._loss, samples=self.config.samples)
        better = loss > state.loss_best
        loss_best = torch.where(better, loss, state.loss_best)
        x_best = torch.where(column(better, x), x, state.x_best)
        grad_best = torch.where(column(better, x), grad, state.grad_best)
        first = state.iteration == 0
        loss_at_check = torch.where(first, loss, state.loss_at_check)
        rises, since = state.rises + (loss > state.loss_before), state.since + 1

        due = since == state.period
        stuck = (rises <= RISING * state.period) | (~state.halved & (loss_at_check >= loss_best))
        halve = due & stuck
        step_size = torch.where(halve, state.step_size / 2, state.step_size)
        back = column(halve, x)
        x_now = torch.where(back, x_best, x)
        grad = torch.where(back, grad_best, grad)

        threat = self.threat
        ahead = threat.project(x_now + column(step_size, x) * threat.ascent(grad), rows.x0)
        momentum = column(torch.where(first, 1.0, MOMENTUM), x)
        moved = x_now + momentum * (ahead - x_now) + (1 - momentum) * (x_now - state.x_before)
        return APGDState(
            rows,
            threat.project(moved, rows.x0),
            state.iteration,
            x_before=x_now,
            x_best=x_best,
            grad_best=grad_best,
            loss_best=loss_best,
            loss_before=loss,
            loss_at_check=torch.where(due, loss_best, loss_at_check),
            step_size=step_size,
            halved=torch.where(due, halve, state.halved),
            rises=torch.where(due, 0, rises),
            since=torch.where(due, 0, since),
            period=torch.where(due, (state.period - self._shrink).clamp(min=self._shortest), state.period),
        )
