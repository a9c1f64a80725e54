"""Output-diversified initialisation: a row first maximises a random direction of the logits.

Restarts from noise tend to reach the same class; these reach others (Tashiro, Song and Ermon, NeurIPS
2020, section 3.1 and algorithm 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.attacks.loss import AttackLoss
from advkit.core import rng

STEPS = 2
"""Steps of length eps in the random direction, before the attack's own."""


def diversified(loss: AttackLoss, key: Tensor, iteration: Tensor) -> AttackLoss:
    """``loss``, but w.logits in the first steps of a row, with w uniform in [-1, 1].

    Args:
        loss: maximised afterwards.
        key: (R,) random keys of the rows, which determine w.
        iteration: (R,) steps taken.
    """

    def diversified_loss(logits: Tensor, label: Tensor, search_target: Tensor | None = None) -> Tensor:
        weight = rng.uniform(rng.step(key, 1), (logits.shape[1],)).mul_(2).sub_(1)
        return torch.where(iteration < STEPS, (weight * logits).sum(1), loss(logits, label, search_target))

    return diversified_loss
