"""The success of a perturbation generator against a classifier, and that of random noise of the same size."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from advkit.attacks.advgan import moved
from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of, logits_of
from advkit.core import rng
from advkit.core.errors import DataError
from advkit.core.threat import Threat
from advkit.data.data import Data

BATCH = 500
"""Images of a pass."""


def attackable(model: nn.Module, data: Data, target: int | None) -> Data:
    """The correctly classified images that are not of the target class.

    Args:
        model: images in [0, 1] to logits, in eval mode.

    Raises:
        DataError: there are none.
    """
    right = (logits_of(model, data).argmax(1) == data.labels) & (
        data.labels != (-1 if target is None else target)
    )
    if not right.any():
        raise DataError(
            f"none of the {len(data)} images of {data.name} ({data.split}) is classified correctly and of "
            "another class than the target, so there is nothing to attack; choose another classifier, other "
            "data or another target"
        )
    return data.take(right.nonzero()[:, 0])


@torch.no_grad()
def generate(generator: nn.Module, data: Data, threat: Threat, device: torch.device) -> tuple[Tensor, float]:
    """(adversarial images (N, C, H, W) on the CPU, images per second)"""
    parts, spent = [], 0.0
    for index in torch.arange(len(data)).split(BATCH):
        x, _ = data.batch(index, device)
        start = time.perf_counter()
        parts.append(moved(threat, x, query(generator, x)).cpu())
        spent += time.perf_counter() - start
    return torch.cat(parts), len(data) / spent


@torch.no_grad()
def hits(
    model: nn.Module, x: Tensor, data: Data, threat: Threat, target: int | None
) -> tuple[Tensor, Tensor]:
    """Which images ``x`` the model misclassifies, and its predictions.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        x: (N, C, H, W) changed images, on the CPU.
        data: the originals, all `attackable`.
        threat: an image outside it does not count.

    Returns:
        (N,) bool and (N,) int64, on the CPU; the class is -1 where a logit is NaN.
    """
    device = device_of(model)
    met, predictions = [], []
    for index in torch.arange(len(data)).split(BATCH):
        x0, label = data.batch(index, device)
        changed = x[index].to(device)
        logits = query(model, changed)
        predicted = torch.where(logits.isnan().any(1), -1, logits.argmax(1))
        success = (predicted != label) & (predicted >= 0) if target is None else predicted == target
        met.append((success & threat.contains(changed, x0)).cpu())
        predictions.append(predicted.cpu())
    return torch.cat(met), torch.cat(predictions)


def misled(model: nn.Module, generator: nn.Module, data: Data, threat: Threat, target: int | None) -> Tensor:
    """(N,) bool: on which images the generator succeeds."""
    x, _ = generate(generator, data, threat, device_of(model))
    return hits(model, x, data, threat, target)[0]


def noise(data: Data, threat: Threat, seed: int) -> Tensor:
    """(N, C, H, W) images with random changes that use the whole budget: each value by eps up or down, in l2
    along a random direction."""
    x, _ = data.batch(torch.arange(len(data)))
    drawn = rng.normal(rng.keys(seed, "random change", data.ids), data.shape)
    return moved(threat, x, drawn.sign() if threat.norm == "linf" else drawn)
