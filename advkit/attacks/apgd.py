"""Auto-PGD: gradient ascent with adaptive step sizes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import assign_
from advkit.attacks.loss import ATTACK_LOSSES, AttackLoss
from advkit.attacks.parts.apgd_steps import FIRST, APGDState, Dense, Schedule, Sparse
from advkit.attacks.parts.ascent import STEPS, diversified, steepest_
from advkit.core import rng
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat


class APGDConfig(StrictModel):
    """Parameters of all forms of the attack."""

    steps: int = Field(100, ge=1)
    """Gradient steps per start and target."""
    restarts: int = Field(1, ge=1)
    """Starts per image and target; later ones only where the earlier failed."""
    samples: int = Field(1, ge=1)
    """Gradients to average in each step: of a randomised model (EOT), or with ``smoothing``."""
    smoothing: Fraction = Field(0, ge=0, le=1)
    """Radius, in units of eps, of the random points around the present one whose gradients are averaged, for
    a loss with ripples that are smaller than eps; 0: of that point alone."""
    start: Literal["noise", "diversified"] = "noise"
    """A random point; or, from there, two more steps along a random direction of the logits (Tashiro et al.
    2020), so that restarts reach different classes."""

    @model_validator(mode="after")
    def _something_to_average(self) -> Self:
        if self.smoothing and self.samples < 2:
            raise ValueError("smoothing averages gradients at several points; take samples=2 or more")
        return self


@attack(
    "apgd",
    summary="Auto-PGD on any loss, untargeted or toward several target classes",
    source="Croce and Hein 2020",
)
class APGD(Attack[APGDState]):
    """Croce and Hein, ICML 2020, algorithm 1, and ICML 2021 for l1; the parameters are those of the reference
    implementation."""

    class Config(APGDConfig):
        loss: str = "margin"
        """Loss to maximise (see `advkit ls attack-losses`)."""
        targets: int = Field(0, ge=0)
        """Target classes, largest logit first; 0: untargeted."""

    config: APGDConfig
    norms = ("linf", "l2", "l1")
    loss_name: ClassVar[str | None] = None
    """The loss of forms of the attack with a fixed one."""

    def __init__(self, config: APGDConfig, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(self.loss_name or config.loss)  # type: ignore[attr-defined]
        self._lead = STEPS if config.start == "diversified" else 0
        self._schedule: Schedule[Any] = Dense(threat, config.steps)
        if threat.norm == "l1":
            self._schedule = Sparse(threat, config.steps, self._lead)

    @property
    def steps(self) -> int:
        """Those of the initialisation, and ``config.steps``."""
        return self._lead + self.config.steps

    def start(self, rows: Rows) -> APGDState:
        """Noise of the size that the schedule determines."""
        x = self._schedule.first(rows)
        state: APGDState = self._schedule.begin(rows, x, torch.zeros_like(rows.label))
        return state

    def step(self, state: APGDState, oracle: Oracle) -> APGDState:
        """Evaluates ``x``, keeps the best point, and moves."""
        rows, x, loss = state.rows, state.x, self._loss
        if self._lead:
            loss = diversified(loss, rows.key, state.iteration)
        values, grad = self._averaged(state, oracle, loss)
        initial = self._initialised(state, grad.clone()) if self._lead else None
        better = values > state.loss_best
        state.loss_best = torch.where(better, values, state.loss_best)
        assign_(state.x_best, better, x)
        assign_(state.grad_best, better, grad)
        moved: APGDState = self._schedule.move(state, values, grad)
        return moved if initial is None else initial.where(state.iteration < self._lead, moved)

    def _averaged(self, state: APGDState, oracle: Oracle, loss: AttackLoss) -> tuple[Tensor, Tensor]:
        """Losses and gradients at ``x``, or their means over it and random points around it."""
        rows, x, samples = state.rows, state.x, self.config.samples
        if not self.config.smoothing:
            return oracle.loss_and_grad(x, rows, loss, samples=samples)[:2]
        values, grad, _ = oracle.loss_and_grad(x, rows, loss)
        near = Threat(self.threat.norm, self.config.smoothing * self.threat.eps)
        for number in range(1, samples):
            key = rng.step(rng.step(rows.key, state.iteration + 1), number)
            point = self.threat.project(near.sample(x, key), rows.x0)
            more = oracle.loss_and_grad(point, rows, loss)
            values, grad = values + more[0], grad + more[1]
        return values / samples, grad / samples

    def _initialised(self, state: APGDState, grad: Tensor) -> APGDState:
        """One step of length eps; the schedule starts after it."""
        ahead = state.x + self.threat.eps * steepest_(grad, state.x, self.threat, FIRST)
        x = self.threat.project_(ahead, state.rows.x0)
        fresh: APGDState = self._schedule.begin(state.rows, x, state.iteration + 1)
        fresh.iteration = state.iteration
        return fresh


@attack("apgd-ce", summary="Auto-PGD on the cross-entropy", source="Croce and Hein 2020")
class APGDCE(APGD):
    """Halves the step and restores the best point where the cross-entropy has stopped rising."""

    class Config(APGDConfig):
        pass

    loss_name = "ce"


@attack("apgd-dlr", summary="Auto-PGD on the difference of logits ratio", source="Croce and Hein 2020")
class APGDDLR(APGD):
    """As `advkit.attacks.apgd`, on a loss that is invariant to the scale of the logits."""

    class Config(APGDConfig):
        pass

    loss_name = "dlr"


@attack(
    "apgd-t",
    summary="Auto-PGD on the targeted difference of logits ratio, one class after another",
    source="Croce and Hein 2020",
)
class APGDT(APGD):
    """A row for each target class, largest logit first; all end when one succeeds."""

    class Config(APGDConfig):
        targets: int = Field(9, ge=1)
        """Target classes, largest logit first."""

    loss_name = "dlr"
