"""Robust accuracy under rotations and translations, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson
from advkit.core.warp import Padding
from advkit.data.result import SubjectResult

By = Literal["random", "grid"]
"""The two lists of transformations."""


class Move(StrictModel):
    """One transformation."""

    angle: float
    """Degrees, counter-clockwise."""
    across: float
    """Pixels to the right."""
    down: float
    """Pixels downwards."""
    size: float
    """Its largest component relative to its limit."""


class SpatialVerdict(StrictModel):
    """The verdict on one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["misclassified", "broken", "robust"]
    """Misclassified without a transformation; misclassified under some; classified correctly under all."""
    random: Move | None = None
    """The first random transformation that breaks it."""
    grid: Move | None = None
    """The smallest transformation of the grid that breaks it."""

    @property
    def move(self) -> Move | None:
        """The one to report: that of the grid if there is one."""
        return self.grid or self.random


class SpatialResult(SubjectResult):
    """Clean accuracy of one model, and robust accuracy under random transformations and under a grid of them.

    Robust accuracy is an upper bound: there are transformations between those of the grid.
    """

    command = "spatial"
    counted = {"clean_correct": ("broken", "robust"), "robust_correct": ("robust",)}
    added = ("card", "notes")

    schema_name: Literal["advkit/spatial"] = Field("advkit/spatial", alias="schema")
    rotation: float
    """Largest rotation in either direction, in degrees."""
    shift: float
    """Largest shift in each direction, in pixels."""
    padding: Padding
    moves_random: int
    """Random transformations per image."""
    moves_grid: int
    seed: int
    clean_correct: int
    random_correct: int
    """Images classified correctly under all random transformations."""
    grid_correct: int
    """Images classified correctly under the whole grid."""
    robust_correct: int
    """Images classified correctly under both."""
    unconfirmed: int
    """Transformations that succeeded in the search but not on the recomputed image; they do not count."""
    forwards: int
    verdicts: tuple[SpatialVerdict, ...]
    clean_interval: Interval
    interval: Interval
    """Exact 95 % interval of the robust accuracy."""

    @classmethod
    def of(cls, verdicts: tuple[SpatialVerdict, ...], **facts: Any) -> SpatialResult:
        """A result with the counts of these verdicts."""
        right = [v for v in verdicts if v.status != "misclassified"]
        n, clean = len(verdicts), len(right)
        robust = sum(v.status == "robust" for v in right)
        return cls(
            **facts,
            n=n,
            clean_correct=clean,
            random_correct=sum(v.random is None for v in right),
            grid_correct=sum(v.grid is None for v in right),
            robust_correct=robust,
            verdicts=verdicts,
            clean_interval=clopper_pearson(clean, n),
            interval=clopper_pearson(robust, n),
        )

    def left_at(self, size: float) -> float:
        """Robust accuracy under the part of the grid within a share ``size`` of the limits."""
        broken = sum(v.grid is not None and v.grid.size <= size for v in self.verdicts)
        return (self.clean_correct - broken) / self.n

    def summary(self) -> str:
        """One line for people."""
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, {accuracy(self.robust_correct, self.n)} "
            f"under rotations up to {self.rotation:g} degrees and translations up to {self.shift:g} px "
            f"(n = {self.n}, {self.data.name} {self.data.split})"
        )
