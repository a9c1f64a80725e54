"""The inputs and outputs of a metric of generated images, and the registry of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from advkit.core.registry import Registry
from advkit.gan.neighbours import radii

K = 5
"""Which neighbour's distance is the radius of a ball, in whatever counts neighbours."""


class Figure(NamedTuple):
    """One number of a metric."""

    key: str
    """As in results."""
    name: str
    """As in tables."""
    better: Literal["lower", "higher", "floor"]
    """Which way is better; "floor": the nearer to the floor."""
    style: str = ".3f"
    """How it is written; ``"accuracy"``: a share of the real images, with its interval."""


@dataclass(frozen=True)
class FeatureBatch:
    """Images with the judge's features and predicted classes."""

    images: Tensor
    """(N, C, H, W) uint8."""
    features: Tensor
    """(N, D) float32."""
    seen: Tensor
    """(N,) int64 classes that the judge predicts: 0..9, or 0..999 for stacked digits."""
    labels: Tensor | None = None
    """(N,) int64 labels: the requested classes, or those of the data; None if unknown."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def balls(self) -> Tensor:
        """(N,) squared radius of a ball around each one's features that reaches to its `K`-th neighbour."""
        return radii(self.features, K)


@dataclass(frozen=True)
class Comparison:
    """Generated images beside real ones.

    For the floor of a metric, ``generated`` are real images that are neither among ``real`` nor ``train``.
    """

    generated: FeatureBatch
    real: FeatureBatch
    """As many images of the test split, which no generator has seen."""
    train: Tensor
    """(M, C, H, W) uint8 images of the training split."""
    shares: Tensor
    """(K,) float64: how often each class is in the training split."""
    digits: bool = True
    """The judge was trained on images like these; otherwise its classes mean nothing."""
    seed: int = 0
    """Every random number follows from it."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.shares)


Measure: TypeAlias = Callable[[Comparison], Mapping[str, float]]
"""From the images to one value for each of the metric's figures."""


class NotApplicableError(Exception):
    """A metric that has no meaning on these images; the message says why."""


METRICS: Registry[Measure] = Registry("GAN metric", "advkit.gan.metrics")


def metric(
    name: str, *figures: Figure, summary: str, source: str, rank: int = 100
) -> Callable[[Measure], Measure]:
    """Decorator that registers a `Measure` under ``name``; it returns ``figures``, one value each.

    Tables show them by ``rank``, the lowest first. The function raises `NotApplicableError` where its figures
    would mean nothing.
    """
    return METRICS.register(name, summary=summary, source=source, figures=figures, rank=rank)
