"""Signs that GAN training goes wrong: lost diversity, a discriminator that always wins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from advkit.gan.judge import TRUSTED, coverage, judge
from advkit.gan.metrics.distances import frechet

GRID = 100
"""Samples whose distances from each other are measured."""
WATCHED = 1000
"""Samples and real images that are compared each time."""
RARE = 0.1
"""Share of its real frequency below which a class counts as missing."""
COLLAPSED = 0.4
"""Share of the real images' diversity below which a warning says that the generator collapses."""
WON = 0.98
"""Accuracy above which a warning says that the generator is too weak."""


def diversity(images: Tensor) -> float:
    """Mean Euclidean distance between pairs of images (N, C, H, W)."""
    return float(torch.pdist(images.flatten(1).float()).mean())


def diversity_within(images: Tensor, labels: Tensor) -> float:
    """Mean Euclidean distance between images (N, C, H, W) of the same class; NaN where no two share one."""
    apart = [torch.pdist(images[labels == label].flatten(1).float()) for label in labels.unique()]
    return float(torch.cat(apart).mean())


class Monitor:
    """Monitors one training run by the judge's features.

    Args:
        real: (N, C, H, W) some real images of the training split, as reference.
        labels: (N,) their classes.
        stacked: each channel is a digit of its own.
    """

    def __init__(self, real: Tensor, labels: Tensor, *, stacked: bool = False) -> None:
        self._diversity = max(diversity(real[:GRID]), 1e-12)
        self._within = diversity_within(real, labels) or math.nan
        self._stacked = stacked
        self._features, seen = self._look(real)
        self._shares = torch.bincount(labels, minlength=10) / len(labels)
        self._reads = len(self._shares) == 10 and float((seen == labels).float().mean()) >= TRUSTED

    def look(self, samples: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        """Statistics of generated images.

        Args:
            samples: (N, C, H, W) in [0, 1].
            labels: (N,) the classes requested from a conditional generator.

        Returns:
            ``diversity`` as a share of the real ones' and, within classes, ``diversity_within``; ``fid`` and
            ``coverage`` against as many real training images; and ``missing``: digits that are hardly drawn,
            where the judge can read the real ones.
        """
        features, seen = self._look(samples)
        found: dict[str, Any] = {
            "diversity": diversity(samples[:GRID]) / self._diversity,
            "fid": frechet(features, self._features),
            "coverage": coverage(self._features, features),
        }
        if labels is not None:
            within = diversity_within(samples, labels.to(samples.device)) / self._within
            if math.isfinite(within):
                found["diversity_within"] = within
        if self._reads:
            shares = torch.bincount(seen, minlength=10) / len(seen)
            found["missing"] = (shares < RARE * self._shares).nonzero()[:, 0].tolist()
        return found

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and classes (N,) as the judge sees them; other than grey or coloured images, their
        mean over the channels."""
        if images.shape[1] not in (1, 3):
            images = images.mean(1, keepdim=True)
        return judge().read(images.cpu(), stacked=self._stacked)


def warnings(row: Mapping[str, Any]) -> dict[str, str]:
    """Warnings about a row of metrics, by kind: what was found and what to try.

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
    elif row.get("diversity_within", 1.0) < COLLAPSED:
        said["collapse"] = (
            f"samples of a class differ {row['diversity_within']:.0%} as much as real images of it: the "
            "generator draws its classes and little else; try --loss relativistic"
        )
    if row.get("missing") and "collapse" not in said:
        digits = ", ".join(map(str, row["missing"]))
        said["missing"] = (
            f"hardly any sample is a {digits}: the generator may be dropping modes; "
            "try --packing 2 or --loss relativistic"
        )
    if row.get("d_accuracy", 0.0) > WON:
        said["won"] = (
            f"discriminator accuracy is {row['d_accuracy']:.0%}: the generator is too weak; "
            "try a smaller --rate-discriminator"
        )
    return said


def covered(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many steps each row of a run's metrics is the mean of."""
    return [step - before for before, step in pairwise([0, *(row["step"] for row in rows)])]
