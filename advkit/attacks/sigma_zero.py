"""The sigma-zero attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.loss import margin
from advkit.attacks.parts.balls import adam_, annealed
from advkit.core.config import StrictModel


@dataclass
class SigmaZeroState(State):
    """The optimisation of each row."""

    mean: Tensor
    """(R, C, H, W) Adam's mean gradient."""
    square: Tensor
    """(R, C, H, W) Adam's mean square."""

    threshold: Tensor
    """(R,) changes smaller than this are set to 0."""


@attack(
    "sigma-zero",
    summary="descent on margin plus a smooth count of changed values, in which small changes are set to 0",
    source="Cina et al., ICLR 2025, arXiv:2402.01879",
)
class SigmaZero(Attack[SigmaZeroState]):
    """Cina et al., ICLR 2025, algorithm 1, with Adam, as in the authors' code.

    A success raises the threshold, so that fewer changes remain; a failure lowers it.
    """

    class Config(StrictModel):
        steps: int = Field(1000, ge=1)
        """Gradient steps."""
        step_size: float = Field(1.0, gt=0)
        """Largest change of a value in the first step; it decreases along a cosine to a tenth."""
        sigma: float = Field(0.001, gt=0)
        """A change d counts as d^2 / (d^2 + sigma) of a value."""
        first_threshold: float = Field(0.3, ge=0, le=1)
        """Initial threshold: smaller changes are set to 0."""
        threshold_step: float = Field(0.01, gt=0)
        """Change of the threshold in each step, in units of the step's size."""

    config: Config
    norms = ("l0",)
    minimal = True

    def start(self, rows: Rows) -> SigmaZeroState:
        """The originals."""
        threshold = rows.x0.new_full((len(rows),), self.config.first_threshold)
        zero, iteration = torch.zeros_like(rows.x0), rows.label.new_zeros(len(rows))
        return SigmaZeroState(rows, rows.x0.clone(), iteration, zero, zero.clone(), threshold)

    def step(self, state: SigmaZeroState, oracle: Oracle) -> SigmaZeroState:
        """Evaluates ``x``, takes a descent step, and sets small changes to 0."""
        rows, x, config = state.rows, state.x, self.config
        value, grad, logits = oracle.loss_and_grad(x, rows, margin)
        won = margin_of(logits, rows) > 0
        size = annealed(state.iteration, config.steps, config.step_size, 0.1 * config.step_size)
        move = config.threshold_step * size
        threshold = (state.threshold + torch.where(won, move, -move)).clamp_(0, 1)

        change = x - rows.x0
        grad.mul_(column((value <= 0).to(grad.dtype), x))  # beyond the boundary, minimise the count only
        count = change.square().add_(config.sigma).square_().reciprocal_().mul_(change)
        grad.sub_(count, alpha=2 * config.sigma / x[0].numel())
        grad.div_(column(grad.flatten(1).abs().amax(1).clamp_(min=1e-12), x))
        uphill = adam_(state.mean, state.square, grad, state.iteration + 1)
        x = x.addcmul_(uphill, column(size, x)).clamp_(0, 1)
        small = torch.sub(x, rows.x0, out=change).abs_() < column(threshold, x)
        x = torch.where(small, rows.x0, x)
        return SigmaZeroState(rows, x, state.iteration, state.mean, state.square, threshold)
