"""Certified accuracy of a smoothed classifier, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson
from advkit.data.result import SubjectResult
from advkit.verify.smoothing.statistics import reach

STEPS_IN_SIGMA = 2
"""Radii of the table per sigma."""


class SmoothedVerdict(StrictModel):
    """The verdict on one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["right", "wrong", "abstained"]
    """The certified class is the label; it is another class; no class is certified."""
    selected: int
    """The class that the first votes selected."""
    votes: int
    """Its count among the later votes."""
    share: float
    """Lower bound of its probability under noise (one-sided, at alpha)."""
    radius: float
    """Within this l2 distance the smoothed classifier returns ``selected``; 0 where it abstains."""


class RadiusPoint(StrictModel):
    """Certified accuracy at one radius."""

    radius: float
    certified: int
    """Images that are classified correctly, with a larger certified radius."""
    accuracy: float
    interval: Interval
    """Exact 95 % interval of the accuracy."""


class SmoothingResult(SubjectResult):
    """Certified accuracy of one smoothed classifier by the l2 radius.

    Each image's radius holds with probability 1 - ``alpha``; the intervals are about the choice of images.
    """

    command = "smooth"
    counted = {status: (status,) for status in ("right", "wrong", "abstained")}

    schema_name: Literal["advkit/smoothing"] = Field("advkit/smoothing", alias="schema")
    sigma: float
    samples: int
    selection: int
    alpha: float
    seed: int
    skip: int
    """Every ``skip``-th image of the split was taken."""
    bare_correct: int
    """Images that the model itself gets right, without noise."""
    right: int
    wrong: int
    abstained: int
    accuracy: float
    """Of the smoothed classifier, where abstaining counts as wrong."""
    interval: Interval
    """Exact 95 % interval of it."""
    average_radius: float
    """Mean certified radius, counted as 0 where it is wrong or abstains."""
    largest_radius: float
    """The largest radius that this number of samples can certify."""
    points: tuple[RadiusPoint, ...]
    verdicts: tuple[SmoothedVerdict, ...]

    @classmethod
    def of(
        cls, verdicts: tuple[SmoothedVerdict, ...], *, sigma: float, samples: int, alpha: float, **facts: Any
    ) -> SmoothingResult:
        """A result with the figures of these verdicts."""
        n, right = len(verdicts), sum(verdict.status == "right" for verdict in verdicts)
        radii = [verdict.radius for verdict in verdicts if verdict.status == "right"]
        largest = reach(samples, alpha, sigma)
        step = sigma / STEPS_IN_SIGMA
        points = []
        for number in range(int(largest / step) + 1):
            certified = sum(radius > number * step for radius in radii)
            points.append(
                RadiusPoint(
                    radius=number * step,
                    certified=certified,
                    accuracy=certified / n,
                    interval=clopper_pearson(certified, n),
                )
            )
        return cls(
            **facts,
            sigma=sigma,
            samples=samples,
            alpha=alpha,
            n=n,
            right=right,
            wrong=sum(verdict.status == "wrong" for verdict in verdicts),
            abstained=sum(verdict.status == "abstained" for verdict in verdicts),
            accuracy=right / n,
            interval=clopper_pearson(right, n),
            average_radius=sum(radii) / n,
            largest_radius=largest,
            points=tuple(points),
            verdicts=verdicts,
        )

    @property
    def radii(self) -> list[float]:
        """Certified radii of the correctly classified images, in ascending order."""
        return sorted(verdict.radius for verdict in self.verdicts if verdict.status == "right")

    def summary(self) -> str:
        """One line for people."""
        return (
            f"average certified radius {self.average_radius:.3f} in l2, smoothed accuracy "
            f"{accuracy(self.right, self.n)}, {self.abstained:,} abstentions (sigma {self.sigma:g}, alpha "
            f"{self.alpha:g}, {self.samples:,} samples per image; n = {self.n:,}, {self.data.name} "
            f"{self.data.split})"
        )
