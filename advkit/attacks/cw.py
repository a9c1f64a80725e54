"""The attack of Carlini and Wagner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.loss import margin
from advkit.attacks.parts.balls import Trials, adam_
from advkit.core.config import StrictModel

INSIDE = 1 - 1e-6
"""Pixels are scaled into (0, 1), where the change of variable is finite."""


@dataclass
class CWState(State):
    """The optimisation of each row, and the search for its constant."""

    free: Tensor
    """(R, C, H, W) the unconstrained variable: ``x = (tanh(free) + 1) / 2``."""
    mean: Tensor
    square: Tensor
    trials: Trials


def _inverse_tanh(x: Tensor) -> Tensor:
    """The inverse of the change of variable."""
    return (2 * x - 1).mul_(INSIDE).atanh_()


@attack(
    "cw",
    summary="Adam on squared distance plus hinged margin, with a search for the weight of the margin",
    source="Carlini and Wagner 2017, l2",
)
class CW(Attack[CWState]):
    """Carlini and Wagner, S&P 2017, section VI A: tanh keeps pixels in the box."""

    class Config(StrictModel):
        steps: int = Field(9000, ge=1)
        """Gradient steps of all trials at most; a trial without progress ends early."""
        binary_searches: int = Field(9, ge=1)
        """Trials, each with its own constant."""
        learning_rate: float = Field(0.01, gt=0)
        """Adam's."""
        first_constant: float = Field(0.001, gt=0)
        """Weight of the margin in the first trial."""

    config: Config
    norms = ("l2",)
    minimal = True

    def start(self, rows: Rows) -> CWState:
        """The originals, as close as the change of variable allows."""
        zero = torch.zeros_like(rows.x0)
        trials = Trials.first(rows.x0, self.config.first_constant)
        iteration = rows.label.new_zeros(len(rows))
        return CWState(rows, rows.x0.clone(), iteration, _inverse_tanh(rows.x0), zero, zero.clone(), trials)

    def step(self, state: CWState, oracle: Oracle) -> CWState:
        """Evaluates ``x``, takes a descent step, and starts a new trial where the last is over."""
        rows, x, config, trials = state.rows, state.x, self.config, state.trials
        value, grad, logits = oracle.loss_and_grad(x, rows, margin)
        change = x - rows.x0
        objective = change.flatten(1).square().sum(1) + trials.constant * (-value).clamp(min=0)
        weight = torch.where(value < 0, trials.constant, 0.0)
        slope = change.mul_(2).addcmul_(column(weight, x), grad, value=-1)
        slope.mul_(x).mul_((1 - x).mul_(2))  # dx / dfree = 2 x (1 - x)
        uphill = adam_(state.mean, state.square, slope, trials.iteration + 1)
        free = state.free.sub_(uphill, alpha=config.learning_rate)
        searches = min(config.binary_searches, config.steps)
        trials, renewed = trials.after(margin_of(logits, rows) > 0, objective, config.steps // searches)
        if x.device.type != "cpu" or renewed.any():
            back = column(renewed, x)
            free = torch.where(back, _inverse_tanh(rows.x0), free)
            state.mean.masked_fill_(back, 0)
            state.square.masked_fill_(back, 0)
        # A row ends after its last trial, however few steps it took.
        iteration = torch.where(trials.number >= searches, config.steps - 1, state.iteration)
        x = free.tanh().add_(1).div_(2)
        return CWState(rows, x, iteration, free, state.mean, state.square, trials)
