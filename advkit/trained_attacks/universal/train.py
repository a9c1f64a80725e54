"""The training of a universal change.

Every random number is a function of (seed, sample, update), so the state of a run is the change, its velocity
and the number of updates: a run that is resumed ends with the same change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core import rng
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.trained_attacks.universal.change import Change
from advkit.trained_attacks.universal.settings import ChangeSettings
from advkit.training.training import Training, evenly

CHECKS = 20
"""Number of checks, evenly spaced: metrics and a checkpoint."""


class ChangeTraining(Training):
    """Steepest ascent with momentum on normalised gradients; the step size decreases linearly to 0.

    Args:
        models: classifiers to attack, in eval mode and on one device.
        target: minimises the models' mean loss of this class; None: maximises that of the label.
        clip: largest loss of an image, without a target.
    """

    figures = ("loss", "misled")
    shown = {"misled": "misled"}
    remedy = "check the classifier's outputs on such images"
    step = 0

    def __init__(
        self,
        kind: Change,
        models: Sequence[Model],
        data: Data,
        config: ChangeSettings,
        target: int | None,
        clip: float = math.inf,
    ) -> None:
        self.kind, self.models, self.data, self.config = kind, models, data, config
        self.target, self.clip, self.device = target, clip, device_of(models[0])
        self.order = Order(len(data), min(config.batch_size, len(data)), config.seed)
        self.batch_size, self.steps = self.order.batch_size, config.steps
        self.rows = self.saves = evenly(CHECKS, config.steps)
        self.change = kind.start().to(self.device)
        self.velocity = torch.zeros_like(self.change)

    def update(self) -> Tensor:
        """One step of the change; the loss and the share of misclassified images."""
        index = self.order.batch(self.step)
        x, label = self.data.batch(index, self.device)
        key = rng.keys(self.config.seed, "change", self.data.ids[index].to(self.device), self.step)
        leaf = self.change.detach().requires_grad_(True)
        losses, misled = _losses(self.models, self.kind.apply(leaf, x, key), label, self.target, self.clip)
        (uphill,) = torch.autograd.grad(losses.mean(), leaf)
        self.velocity = self.config.momentum * self.velocity + uphill / uphill.abs().mean().clamp(min=1e-20)
        self.change = self.kind.ascend(self.change, self.velocity, 1 - self.step / self.steps)
        self.step += 1
        return torch.stack([losses.detach().mean(), misled])

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs."""
        return {"step": self.step, "change": self.change, "velocity": self.velocity}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state`."""
        self.step = state["step"]
        self.change, self.velocity = (state[key].to(self.device) for key in ("change", "velocity"))


def _losses(
    models: Sequence[Model], x: Tensor, label: Tensor, target: int | None, clip: float
) -> tuple[Tensor, Tensor]:
    """((R,) loss to maximise, the share of misclassified images), averaged over the models."""
    reference = label if target is None else torch.full_like(label, target)
    losses, misled = x.new_zeros(len(x)), x.new_zeros(())
    for model in models:
        logits = query(model, x)
        entropy = cross_entropy(logits, reference, reduction="none")
        losses = losses + (entropy.clamp(max=clip) if target is None else -entropy)
        equal = logits.argmax(1) == reference
        misled = misled + (equal if target is not None else ~equal).float().mean()
    return losses / len(models), misled / len(models)
