"""DeepFool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.parts.boundary import nearest
from advkit.core.config import StrictModel


@dataclass
class DeepFoolState(State):
    """The sum of the steps of each row."""

    change: Tensor
    """(R, C, H, W) without overshoot, inside the box."""


@attack(
    "deepfool",
    summary="steps onto the nearest linearised boundary until one is crossed",
    source="Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016",
)
class DeepFool(Attack[DeepFoolState]):
    """Algorithm 2, inside the box: finds an image near the original in a few steps, rarely the nearest."""

    class Config(StrictModel):
        steps: int = Field(50, ge=1)
        """Steps at most; about three are usual."""
        overshoot: float = Field(0.02, ge=0)
        """Overshoot beyond the boundary, as a share of the change."""
        classes: int | None = Field(9, ge=1)
        """Wrong classes considered in each step, those of the largest logits; None: all."""

    config: Config
    norms = ("linf", "l2")
    minimal = True

    def start(self, rows: Rows) -> DeepFoolState:
        """The originals."""
        return DeepFoolState(rows, rows.x0, rows.label.new_zeros(len(rows)), torch.zeros_like(rows.x0))

    def step(self, state: DeepFoolState, oracle: Oracle) -> DeepFoolState:
        """Evaluates ``x`` and steps onto the boundary; a row that has crossed one is finished."""
        rows, config = state.rows, self.config
        value, grad, logits = nearest(oracle, state.x, rows, self.threat.norm, config.classes)
        crossed = margin_of(logits, rows) > 0
        if self.threat.norm == "l2":  # pixels that cannot move take no part, or the steps become ever shorter
            grad = grad.where(torch.where(grad > 0, state.x < 1, state.x > 0), 0.0)
        slope = grad.abs().flatten(1).sum(1) if self.threat.norm == "linf" else grad.flatten(1).norm(dim=1)
        length = torch.where(crossed, 0.0, value.abs() / slope.clamp(min=1e-12))
        change = state.change + self.threat.ascent_(grad) * column(length, grad)
        change = (rows.x0 + change).clamp_(0, 1) - rows.x0
        x = (rows.x0 + (1 + config.overshoot) * change).clamp_(0, 1)
        iteration = torch.where(crossed, self.steps - 1, state.iteration)  # the engine counts this step too
        return DeepFoolState(rows, x, iteration, change)
