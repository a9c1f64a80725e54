"""Binary search over the weight of success against distance, per row.

Attacks that minimise distance + constant * failure find the nearest success at the smallest constant with any
success. So they try several: ten times as large after a failure, the middle once both bounds are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.attacks.engine.record import TensorRecord

PROGRESS = 0.9999
"""A trial ends early where a tenth of its iterations leaves more than this share of its lowest objective."""


@dataclass
class Trials(TensorRecord):
    """The binary search of each row."""

    constant: Tensor
    """(R,) weight of success in this trial."""
    low: Tensor
    """(R,) largest weight that failed."""
    high: Tensor
    """(R,) smallest weight that succeeded; infinite before any."""
    number: Tensor
    """(R,) finished trials."""
    iteration: Tensor
    """(R,) steps taken in this trial."""
    won: Tensor
    """(R,) bool: this trial has succeeded."""
    lowest: Tensor
    """(R,) lowest objective of this trial."""
    checked: Tensor
    """(R,) the lowest at the last check for early ending."""

    @classmethod
    def first(cls, like: Tensor, constant: float) -> Trials:
        """Before the first step of ``like.shape[0]`` rows."""
        weight = torch.full((len(like),), constant, device=like.device)
        zero, none = torch.zeros_like(weight), torch.zeros_like(weight, dtype=torch.int64)
        endless = zero + torch.inf
        return cls(weight, zero, endless, none, none, none.bool(), endless, endless)

    def after(self, won: Tensor, objective: Tensor, iterations: int) -> tuple[Trials, Tensor]:
        """(the trials after a step, (R,) bool: a new trial begins).

        Args:
            won: (R,) bool: the step found a success.
            objective: (R,) the minimised sum at this step.
            iterations: of a trial.
        """
        won = won | self.won
        check = self.iteration % max(iterations // 10, 1) == 0
        lowest = torch.minimum(objective, self.lowest)
        over = (self.iteration + 1 >= iterations) | (check & (lowest > PROGRESS * self.checked))
        high = torch.where(over & won, torch.minimum(self.high, self.constant), self.high)
        low = torch.where(over & ~won, torch.maximum(self.low, self.constant), self.low)
        chosen = torch.where(high.isfinite(), (low + high) / 2, 10 * self.constant)
        return Trials(
            torch.where(over, chosen, self.constant),
            low,
            high,
            self.number + over,
            torch.where(over, 0, self.iteration + 1),
            won & ~over,
            torch.where(over, torch.inf, lowest),
            torch.where(over, torch.inf, torch.where(check, lowest, self.checked)),
        ), over
