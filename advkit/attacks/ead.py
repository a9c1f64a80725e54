"""The elastic-net attack."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.loss import margin
from advkit.attacks.parts.balls import Trials, slope
from advkit.core.config import StrictModel

SHORTEST = 10
"""Fewest steps of a trial; with few steps in total, there are fewer trials."""


@dataclass
class EADState(State):
    """``x`` is the extrapolated point of FISTA."""

    shrunk: Tensor
    """(R, C, H, W) the point after the last shrinkage."""
    trials: Trials


@attack(
    "ead",
    summary="FISTA on l1 plus squared l2 distance plus hinged margin, with a search for the margin's weight",
    source="Chen et al. 2018, arXiv:1709.04114",
)
class EAD(Attack[EADState]):
    """Chen et al., AAAI 2018, algorithm 1 with the l1 decision rule.

    Evaluates the points at which it takes the gradient, so that a step costs one pass. A change stays 0 while
    constant * step size * slope is below beta, so the default first constant exceeds that.
    """

    class Config(StrictModel):
        steps: int = Field(9000, ge=1)
        """Gradient steps of all trials at most; a trial without progress ends early."""
        binary_searches: int = Field(9, ge=1)
        """Trials, each with its own constant."""
        step_size: float = Field(0.01, gt=0)
        """First step size of a trial; it decreases with the root of the remaining steps."""
        beta: float = Field(0.01, ge=0)
        """Weight of the l1 distance: a step sets changes smaller than this to 0."""
        first_constant: float | None = Field(None, gt=0)
        """Weight of the margin in the first trial; by default twice the least at which the first step changes
        a value."""

    config: Config
    norms = ("l1",)
    minimal = True

    def start(self, rows: Rows) -> EADState:
        """The originals."""
        trials = Trials.first(rows.x0, self.config.first_constant or 0.0)
        return EADState(rows, rows.x0.clone(), rows.label.new_zeros(len(rows)), rows.x0.clone(), trials)

    def step(self, state: EADState, oracle: Oracle) -> EADState:
        """Evaluates ``x``, takes a descent step, shrinks, and starts a new trial where the last is over."""
        rows, x, config, trials = state.rows, state.x, self.config, state.trials
        value, grad, logits = oracle.loss_and_grad(x, rows, margin)
        searches = min(config.binary_searches, max(config.steps // SHORTEST, 1))
        iterations = config.steps // searches
        if config.first_constant is None:
            least = config.beta / (config.step_size * slope(grad, "l1"))
            trials = replace(trials, constant=torch.where(state.iteration == 0, 2 * least, trials.constant))
        change = x - rows.x0
        flat = change.flatten(1)
        objective = flat.square().sum(1) + config.beta * flat.abs().sum(1)
        objective += trials.constant * (-value).clamp(min=0)
        weight = torch.where(value < 0, trials.constant, 0.0)
        k = trials.iteration
        size = column(config.step_size * (1 - k / iterations).clamp(min=0).sqrt(), x)
        downhill = grad.mul_(column(-weight, x)).add_(change, alpha=2)
        change.sub_(downhill.mul_(size))
        change.sub_(change.clamp(-config.beta, config.beta))
        shrunk = change.add_(rows.x0).clamp_(0, 1)
        ahead = torch.lerp(state.shrunk, shrunk, column(1 + k / (k + 3), x)).clamp_(0, 1)
        trials, renewed = trials.after(margin_of(logits, rows) > 0, objective, iterations)
        renewed &= trials.number < searches
        if x.device.type != "cpu" or renewed.any():
            back = column(renewed, x)
            shrunk, ahead = torch.where(back, rows.x0, shrunk), torch.where(back, rows.x0, ahead)
        # A row ends after its last trial, however few steps it took.
        iteration = torch.where(trials.number >= searches, config.steps - 1, state.iteration)
        return EADState(rows, ahead, iteration, shrunk, trials)
