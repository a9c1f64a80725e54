"""Whether images are copies of training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from advkit.core import levels
from advkit.gan.metric import Comparison, Figure, metric
from advkit.gan.neighbours import nearest

SIDE = 16
"""Larger images are halved until no side is longer: a copy stays a copy, and looking is cheaper."""
MANY = 10_000
"""Generated and real images looked at, at most."""
TRAINING = 60_000
"""Training images among which neighbours are sought, at most."""
RATIO = 1 / 3
"""A copy is nearer to one training image than this share of the distance to the next one."""


@metric(
    "memorisation",
    Figure("copied", "copies", "floor", ".2%"),
    Figure("nearer", "nearer than real", "floor", ".1%"),
    summary="memorisation: generated images that copy training images, and typical distances",
    source="Yoon et al. 2023 (copies: a third of the distance to the second nearest); Meehan et al. 2020",
    rank=80,
)
def memorisation(comparison: Comparison) -> dict[str, float]:
    """By distances of pixels to the nearest training images.

    ``copied`` is the share whose nearest training image is nearer than a third of the distance to the second
    nearest. ``nearer`` is the chance that a generated image is nearer to its nearest training image than
    a real test image is to its own: 50 % for new images of the same kind, 100 % for copies, 0 % for images
    that are far from all digits.
    """
    train = _points(comparison.train[:TRAINING])
    generated, _ = nearest(_points(comparison.generated.images[:MANY]), train, 2)
    real, _ = nearest(_points(comparison.real.images[:MANY]), train, 1)
    first, second = generated.T.contiguous()
    copied = first <= RATIO * second
    return {"copied": float(copied.float().mean()), "nearer": _below(first, real.flatten())}


def neighbours(images: Tensor, train: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The ``n`` of ``images`` (N, C, H, W) uint8 that are nearest to a training image, the nearest first, and
    those training images."""
    train = train[:TRAINING]
    distance, where = nearest(_points(images), _points(train), 1)
    first = distance.flatten().argsort(stable=True)[:n]
    return images[first], train[where[first, 0]]


def _points(images: Tensor) -> Tensor:
    """(N, D) pixels of images."""
    parts = []
    for part in images.split(10_000):
        x = levels.as_image(part)
        while max(x.shape[2:]) > SIDE:
            x = avg_pool2d(x, 2, ceil_mode=True)
        parts.append(x.flatten(1))
    return torch.cat(parts)


def _below(a: Tensor, b: Tensor) -> float:
    """The chance that one of ``a`` is below one of ``b``, equals counting half (Mann and Whitney's U)."""
    order = b.sort().values
    above = len(b) - torch.searchsorted(order, a, right=True)
    equal = len(b) - torch.searchsorted(order, a) - above
    return float((above + equal / 2).double().mean() / len(b))
