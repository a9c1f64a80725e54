"""Minimum norms, and the security curve that follows from them, as a versioned file."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr
from torch import Tensor

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson, median_ranks
from advkit.core.threat import Norm
from advkit.data.classes import class_name
from advkit.data.result import SubjectResult
from advkit.evaluation.curve.scale import Scale, parts_of_one


class MinimumNorm(StrictModel):
    """The distance of the nearest adversarial image found for one image."""

    id: int
    """Its position in the split."""
    label: int
    minimum_norm: float | None
    """Distance of the nearest success; 0 for a misclassified image, None where none was found."""
    attack: str | None = None
    """The attack that found it."""
    forwards: int = 0
    """Forward passes spent on it by all attacks."""
    backwards: int = 0


class Searched(StrictModel):
    """One attack, on all correctly classified images."""

    name: str
    attack: str
    parameters: dict[str, Any]
    """All parameters, including defaults."""
    attacked: int
    found: int
    """Images on which it found a success."""
    nearest: int
    """Images on which its success is the nearest; of equally near ones the first attack counts."""
    median: float | None
    """Median distance of its successes over the attacked images; None: fewer than half."""
    forwards: int
    backwards: int


class Mark(StrictModel):
    """A usual threat model in this norm."""

    eps: float
    said: str
    """Where it comes from."""


class Point(StrictModel):
    """The curve at one eps."""

    eps: float
    robust_correct: int
    robust_accuracy: float
    interval: Interval
    """Exact 95 % interval."""


class Steps(StrictModel):
    """The curve, a step function: ``robust_correct[i]`` from ``eps[i]`` up to the next."""

    eps: tuple[float, ...]
    """0, and every minimum norm, in ascending order."""
    robust_correct: tuple[int, ...]


class Median(StrictModel):
    """A median minimum norm: the eps at which half of the images are broken."""

    value: float | None
    """None: no success was found for at least half of the images."""
    low: float
    high: float | None
    """A distribution-free interval of at least 95 % coverage; None: no upper end."""

    @classmethod
    def of(cls, norms: Iterable[float]) -> Median:
        """Of minimum norms, infinite where nothing was found."""
        ordered = sorted(norms)
        low, high = median_ranks(len(ordered))
        farthest = max((value for value in ordered if value < math.inf), default=0.0)
        return cls(
            value=_finite(ordered[(len(ordered) - 1) // 2]),
            low=min(ordered[low], farthest) if low >= 0 else 0.0,
            high=_finite(ordered[high]) if high < len(ordered) else None,
        )


class ClassRow(StrictModel):
    """The images of one class."""

    label: int
    name: str
    n: int
    clean_correct: int
    robust_correct: int
    """At the curve's ``class_eps``."""
    interval: Interval
    """Exact 95 % interval of the robust accuracy there."""
    median: Median


class SecurityCurve(SubjectResult):
    """Robust accuracy of one model at every eps in one norm.

    All of it is an upper bound: nearer adversarial images may exist.
    """

    command = "curve"

    schema_name: Literal["advkit/curve"] = Field("advkit/curve", alias="schema")
    norm: Norm
    marks: tuple[Mark, ...]
    """Usual threat models in this norm: that of the model's robust training, the default of the data set."""
    seed: int
    clean_correct: int
    unbroken: int
    """Correctly classified images without a success at any distance."""
    clean_accuracy: float
    clean_interval: Interval
    median: Median
    """Over all images, where a misclassified one has 0."""
    half: float | None
    """The eps at which half of the clean accuracy is left; None: no such eps."""
    points: tuple[Point, ...]
    """The curve at round eps, at the marks, and at requested eps."""
    class_eps: float
    """The eps at which classes are compared: the first mark, else the point nearest to ``half``."""
    classes: tuple[ClassRow, ...]
    curve: Steps
    attacks: tuple[Searched, ...]
    forwards: int
    backwards: int
    images: tuple[MinimumNorm, ...]
    """One for each image, in the order of the data."""

    _adversarial: Tensor | None = PrivateAttr(None)

    @classmethod
    def of(
        cls,
        images: tuple[MinimumNorm, ...],
        *,
        norm: Norm,
        marks: tuple[Mark, ...],
        names: Sequence[str],
        eps: Sequence[float],
        **facts: Any,
    ) -> SecurityCurve:
        """The curve that follows from the minimum norms.

        Args:
            images: minimum norms.
            norm: that of all.
            marks: usual threat models in this norm.
            names: of the classes.
            eps: requested points of the curve.
            facts: the other fields.
        """
        norms = [_number(image.minimum_norm) for image in images]
        right = [value for value in norms if value > 0]
        half = Median.of(right).value if right else 0.0
        scale = Scale.of(norm, [value for value in right if value < math.inf], [mark.eps for mark in marks])
        asked = sorted({*scale.eps, *(mark.eps for mark in marks), *eps})
        distances = Distances(norms)
        near = min(scale.eps, key=lambda one: abs(one - (half or 0.0)))
        class_eps = marks[0].eps if marks else near
        steps = sorted({0.0, *(value for value in norms if value < math.inf)})
        return cls(
            **facts,
            norm=norm,
            marks=marks,
            images=images,
            n=len(images),
            clean_correct=len(right),
            unbroken=sum(value == math.inf for value in norms),
            clean_accuracy=len(right) / len(images),
            clean_interval=clopper_pearson(len(right), len(images)),
            median=Median.of(norms),
            half=half,
            points=tuple(distances.at(one) for one in asked),
            class_eps=class_eps,
            classes=_classes(images, names, class_eps),
            curve=Steps(eps=tuple(steps), robust_correct=tuple(distances.left(one) for one in steps)),
        )

    def asked(self, eps: Sequence[float]) -> Self:
        """A copy with these eps among its points."""
        known = {point.eps for point in self.points}
        more = [self.at(one) for one in dict.fromkeys(eps) if one not in known]
        points = sorted((*self.points, *more), key=lambda point: point.eps)
        return self.model_copy(update={"points": tuple(points)})

    def at(self, eps: float) -> Point:
        """The curve at one eps: the number of images whose minimum norm is above it."""
        return Distances(self.norms).at(eps)

    @property
    def parts(self) -> int:
        """255 where distances are printed in units of 1/255, else 1."""
        return parts_of_one(self.norm, [mark.eps for mark in self.marks])

    def text(self, median: Median) -> str:
        """A median with its interval, in units of 1/`parts`; a dash where there is no number."""
        ends = (median.value, median.low, median.high)
        value, low, high = ("-" if one is None else f"{one * self.parts:.3g}" for one in ends)
        return f"{value} [{low}, {high}]"

    @property
    def norms(self) -> list[float]:
        """(n) minimum norms, in the order of the data; infinite where none was found."""
        return [_number(image.minimum_norm) for image in self.images]

    @property
    def adversarial(self) -> Tensor | None:
        """(n, C, H, W) float32: the nearest adversarial images, originals where there is none; None unless
        kept."""
        return self._adversarial

    def summary(self) -> str:
        """One line for people."""
        said = "no adversarial image was found for half of the images"
        if self.median.value is not None:
            unit = " / 255" if self.parts > 1 else ""
            said = f"half of the images are broken within {self.norm} {self.text(self.median)}{unit}"
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}; {said} "
            f"(n = {self.n:,}, {self.data.name} {self.data.split})"
        )

    @property
    def warning(self) -> str:
        """What speaks against the curve; empty if nothing does."""
        if not self.unbroken:
            return ""
        return (
            f"On {self.unbroken} of {self.clean_correct} images no adversarial example was found at any "
            "distance, although one must exist: gradients may be masked, and the curve too high."
        )

    def __str__(self) -> str:
        left = (f"{self.norm} eps {p.eps:.4g}: {accuracy(p.robust_correct, self.n)}" for p in self.points)
        return self.said(*filter(None, [self.warning]), "robust accuracy, at most:", *left)


class Distances:
    """Sorted minimum norms.

    Args:
        norms: infinite where nothing was found.
    """

    def __init__(self, norms: Iterable[float]) -> None:
        self._ordered = sorted(norms)

    def left(self, eps: float) -> int:
        """The number of images with a larger minimum norm than eps."""
        return len(self._ordered) - bisect_right(self._ordered, eps)

    def at(self, eps: float) -> Point:
        """The curve at eps."""
        left, n = self.left(eps), len(self._ordered)
        return Point(
            eps=eps, robust_correct=left, robust_accuracy=left / n, interval=clopper_pearson(left, n)
        )


def _classes(images: Sequence[MinimumNorm], names: Sequence[str], eps: float) -> tuple[ClassRow, ...]:
    norms: dict[int, list[float]] = {}
    for image in images:
        norms.setdefault(image.label, []).append(_number(image.minimum_norm))
    rows = []
    for label, values in sorted(norms.items()):
        left = Distances(values).left(eps)
        rows.append(
            ClassRow(
                label=label,
                name=class_name(label, names),
                n=len(values),
                clean_correct=sum(value > 0 for value in values),
                robust_correct=left,
                interval=clopper_pearson(left, len(values)),
                median=Median.of(values),
            )
        )
    return tuple(rows)


def _number(minimum_norm: float | None) -> float:
    return math.inf if minimum_norm is None else minimum_norm


def _finite(value: float) -> float | None:
    return value if value < math.inf else None
