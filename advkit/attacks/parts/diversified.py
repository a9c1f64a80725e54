"""Output-diversified starts: a row first climbs a random direction of the logits, then attacks from there.

Restarts from noise tend to end at the same class; these lead to others (Tashiro, Song and Ermon, NeurIPS
2020, section 3.1 and algorithm 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.attacks.loss import AttackLoss
from advkit.core import rng

STEPS = 2
"""Steps of length eps toward the random direction, which come before the attack's own."""


def diversified(loss: AttackLoss, key: Tensor, iteration: Tensor) -> AttackLoss:
    """``loss``, but w.logits in the first steps of a row, with w uniform in [-1, 1].

    Args:
        loss: what is climbed afterwards.
        key: (R,) random keys of the rows, from which w follows.
        iteration: (R,) steps taken.
    """

    def climbed(logits: Tensor, label: Tensor, search_target: Tensor | None = None) -> Tensor:
        weight = rng.uniform(rng.step(key, 1), (logits.shape[1],)).mul_(2).sub_(1)
        return torch.where(iteration < STEPS, (weight * logits).sum(1), loss(logits, label, search_target))

    return climbed
