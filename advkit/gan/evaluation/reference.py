"""The real images that generators are compared with, and what the metrics say of real images: the floors."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from advkit.core import images, rng
from advkit.core.errors import ConfigError, DataError, UserError, by_size
from advkit.core.progress import SILENT, Progress
from advkit.core.registry import Entry
from advkit.data.data import Data
from advkit.gan.judge import DIGITS, STACKED, TRUSTED, Judge, are_stacked
from advkit.gan.metric import METRICS, Comparison, FeatureBatch, Measure, NotApplicableError
from advkit.gan.metrics.memorisation import TRAINING
from advkit.models.card import Shape

LEAST = 10
"""Images of each kind without which nothing can be said."""


class Reference:
    """Real images of both splits, as the judge sees them.

    The floor's images are drawn from the training split, like those that a perfect generator would draw, and
    are compared with the same test images as any generator's.

    Args:
        test: what they have not seen.
        n: images of each kind; fewer where there are fewer.

    Raises:
        ConfigError: too few images.
    """

    def __init__(self, train: Data, test: Data, judge: Judge, *, n: int, seed: int = 0) -> None:
        self.train, self.test, self.judge, self.seed = train, test, judge, seed
        self.n = min(n, len(test), len(train) // 2)
        if self.n < LEAST:
            raise ConfigError(
                f"{train.name!r} has {len(train)} training and {len(test)} test images, of which {self.n} "
                f"can be compared; give {LEAST} test images and {2 * LEAST} training images at least"
            )
        self.stacked = are_stacked(train)
        self.shares = torch.bincount(train.labels, minlength=train.classes).double() / len(train)

    def refuse_other_shape(self, name: str, shape: Shape) -> None:
        """Raises a `DataError` if a generator's images are not of the data's size."""
        if shape != self.train.shape:
            theirs, own = map(by_size, (shape, self.train.shape))
            raise DataError(
                f"{name} draws {theirs} images and {self.train.name!r} has {own}; name the data that it "
                "learned with --data"
            )

    def feature_batch(self, drawn: Tensor, labels: Tensor | None = None) -> FeatureBatch:
        """uint8 images and what the judge makes of them."""
        return FeatureBatch(drawn, *self.judge.read(drawn, stacked=self.stacked), labels)

    @cached_property
    def accuracy(self) -> float | None:
        """Share of the real images that the judge reads right; None where the classes are no digits."""
        labels = self.real.labels
        if labels is None or self.train.class_names not in (DIGITS, STACKED):
            return None
        return float((self.real.seen == labels).float().mean())

    @property
    def digits(self) -> bool:
        """Whether the judge's answers mean something here: not on photographs of house numbers, say."""
        return self.accuracy is not None and self.accuracy >= TRUSTED

    @cached_property
    def real(self) -> FeatureBatch:
        """Of the test split."""
        rows = rng.permutation(self.seed, "judged real images", len(self.test))[: self.n]
        return self.feature_batch(_levels(self.test, rows), self.test.labels[rows])

    @cached_property
    def _order(self) -> Tensor:
        return rng.permutation(self.seed, "floor's images", len(self.train))

    def comparison(self, generated: FeatureBatch) -> Comparison:
        """Generated images beside the real ones."""
        return self._beside(generated, _levels(self.train, torch.arange(min(TRAINING, len(self.train)))))

    @cached_property
    def floor(self) -> Comparison:
        """Real images of the training split beside the real ones, and the rest of the training split."""
        rows, rest = self._order[: self.n], self._order[self.n :]
        stand_in = self.feature_batch(_levels(self.train, rows), self.train.labels[rows])
        return self._beside(stand_in, _levels(self.train, rest[:TRAINING]))

    def _beside(self, generated: FeatureBatch, train: Tensor) -> Comparison:
        return Comparison(generated, self.real, train, self.shares, digits=self.digits, seed=self.seed)


def _levels(data: Data, rows: Tensor) -> Tensor:
    return torch.cat([images.to_uint8(data.images[part]) for part in rows.split(10_000)])


def chosen(names: Iterable[str]) -> list[Entry[Measure]]:
    """Metrics by their names, or all of them, in the order of tables.

    Raises:
        ConfigError: an unknown name.
    """
    named = {entry.name: entry for entry in map(METRICS.entry, names)}
    return sorted(named.values() or METRICS, key=lambda entry: (entry.facts["rank"], entry.name))


def measure(
    comparison: Comparison, metrics: Iterable[Entry[Measure]], name: str, progress: Progress = SILENT
) -> tuple[dict[str, float], dict[str, str]]:
    """Figures by their keys, and why metrics were left out, by their names."""
    figures: dict[str, float] = {}
    skipped: dict[str, str] = {}
    metrics = list(metrics)
    with progress.task(name, len(metrics), unit="metric") as task:
        for entry in metrics:
            try:
                figures |= entry.thing(comparison)
            except (NotApplicableError, UserError) as reason:
                skipped[entry.name] = str(reason)
            task.advance(metric=entry.name)
    return figures, skipped
