"""The threshold on a detector's scores for a given false-positive rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core import rng
from advkit.core.errors import DataError, ModelError
from advkit.data.data import Data
from advkit.models.model import Model, evaluation_mode

BATCH = 500
"""Images of a pass."""


@torch.no_grad()
def scores(detector: Model, images: Data | Tensor) -> Tensor:
    """(N,) scores of images, on the CPU; larger means more likely adversarial.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    if len(images) == 0:
        return torch.empty(0)
    device, found = device_of(detector), []
    with evaluation_mode(detector):
        for part in torch.arange(len(images)).split(BATCH):
            x = images.batch(part, device)[0] if isinstance(images, Data) else images[part].to(device)
            found.append(query(detector, x).float().cpu())
    joined = torch.cat(found)
    if not joined.isfinite().all():
        raise ModelError("the detector gives scores that are NaN or infinite on clean images; train it again")
    return joined


def threshold(clean: Tensor, rate: float) -> float:
    """The smallest score of ``clean`` (N,) that at most a share ``rate`` of them exceeds.

    Raises:
        DataError: so few scores that flagging a single image would exceed the rate.
    """
    allowed = math.floor(rate * len(clean) + 1e-9)
    if allowed < 1:
        raise DataError(
            f"a false-positive rate of {rate:g} cannot be fixed on {len(clean)} clean images: a single "
            f"one is a larger share; hold out at least {math.ceil(1 / rate - 1e-9)} (--held, half of the "
            "split at most), or allow larger --rates"
        )
    return float(clean.sort(descending=True).values[allowed])


def divided(data: Data, held: int, n: int | None) -> tuple[Data, Data]:
    """(images to judge, other images to fix thresholds on): a fixed random split.

    Args:
        data: a split that nothing was trained on.
        held: images for the threshold; half of the split at most.
        n: largest number of images to judge.

    Raises:
        DataError: there is only one image.
    """
    if len(data) < 2:
        raise DataError(
            f"data {data.name!r} ({data.split}) has {len(data)} image, and thresholds are fixed on others "
            "than those that are judged; give more"
        )
    order = rng.permutation(0, "threshold", len(data))
    count = min(held, len(data) // 2)
    return data.take(order[count:].sort().values).limit(n), data.take(order[:count].sort().values)
