"""Logit margin."""

import torch
from torch import Tensor

from advkit.attacks.loss import attack_loss


@attack_loss(
    "margin",
    summary="largest other logit minus the true class's; positive means broken",
    source="Carlini and Wagner 2017, loss f6",
)
def margin(logits: Tensor, label: Tensor) -> Tensor:
    """max over i != label of z_i, minus z_label; unlike cross-entropy it does not flatten out."""
    true = logits.gather(1, label[:, None])
    others = logits.scatter(1, label[:, None], -torch.inf)
    return others.amax(1) - true[:, 0]
