"""Signs that a GAN's game goes wrong: lost diversity, a discriminator that always wins, divergence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from advkit.errors import DivergedError

COLLAPSED = 0.4
"""Share of the real images' diversity under which the generator is said to repeat itself."""
WON = 0.98
"""Accuracy above which the discriminator is said to win every time."""


def diversity(images: Tensor) -> float:
    """Mean Euclidean distance between pairs of images (N, C, H, W)."""
    return float(torch.pdist(images.flatten(1).float()).mean())


class Monitor:
    """Watches one training run.

    Args:
        real: some real images, whose diversity is the yardstick.
    """

    def __init__(self, real: Tensor) -> None:
        self._real = max(diversity(real), 1e-12)

    def relative_diversity(self, samples: Tensor) -> float:
        """Diversity of generated images as a share of the real ones'."""
        return diversity(samples) / self._real


def warnings(row: Mapping[str, Any]) -> dict[str, str]:
    """What goes wrong in a row of metrics, by kind: what is seen and what to try, for a person.

    Only rows with samples are judged: they are rare enough that the first steps, when any discriminator
    wins, are over.
    """
    said: dict[str, str] = {}
    if "diversity" not in row:
        return said
    if row["diversity"] < COLLAPSED:
        said["collapse"] = (
            f"samples differ {row['diversity']:.0%} as much as real images: the generator may be collapsing; "
            "try a smaller --rate-generator or another --loss"
        )
    if row["d_accuracy"] > WON:
        said["won"] = (
            f"discriminator accuracy is {row['d_accuracy']:.0%}: the generator is too weak; "
            "try a smaller --rate-discriminator"
        )
    return said


def first_warnings(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The first warning of each kind in a run's metrics, with its step."""
    said: dict[str, str] = {}
    for row in rows:
        for kind, sentence in warnings(row).items():
            said.setdefault(kind, f"step {row['step']}: {sentence}")
    return list(said.values())


def covered(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many steps each row of a run's metrics is the mean of."""
    return [step - before for before, step in pairwise([0, *(row["step"] for row in rows)])]


def stop_if_diverged(step: int, **losses: float) -> None:
    """Raises `DivergedError` when a loss is no longer finite."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise DivergedError(
                f"training diverged at step {step}: {name} is {loss}; "
                "try smaller learning rates (--rate-generator, --rate-discriminator)"
            )
