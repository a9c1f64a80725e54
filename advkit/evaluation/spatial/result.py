"""What turning and shifting found, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson
from advkit.core.stored import SummarisedResult
from advkit.core.warp import Padding
from advkit.models.card import DataFacts

By = Literal["random", "grid"]
"""The two lists of moves."""


class Move(StrictModel):
    """One transformation."""

    angle: float
    """Degrees, counter-clockwise."""
    across: float
    """Pixels to the right."""
    down: float
    """Pixels downwards."""
    size: float
    """Its largest part, as a share of what is allowed of it."""


class SpatialVerdict(StrictModel):
    """What became of one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["misclassified", "broken", "robust"]
    """Wrong as it is; wrong after some move; right after all that were tried."""
    random: Move | None = None
    """The first random move that breaks it."""
    grid: Move | None = None
    """The smallest move of the grid that breaks it."""

    @property
    def move(self) -> Move | None:
        """The one to show: of the grid if there is one."""
        return self.grid or self.random


class SpatialResult(SummarisedResult):
    """Accuracy of one model as it is, under random moves and under all moves of a grid.

    What survives is an upper bound: between the moves of the grid there are others.
    """

    command = "spatial"

    schema_name: Literal["advkit/spatial"] = Field("advkit/spatial", alias="schema")
    status: Literal["complete", "partial"]
    """Partial: only a part of the split was asked for."""
    rotation: float
    """Largest rotation either way, in degrees."""
    shift: float
    """Largest shift each way, in pixels."""
    padding: Padding
    moves_random: int
    """Random moves for each image."""
    moves_grid: int
    model_hash: str
    data: DataFacts
    seed: int
    n: int
    clean_correct: int
    random_correct: int
    """Right under all random moves."""
    grid_correct: int
    """Right under all moves of the grid."""
    robust_correct: int
    """Right under all of both."""
    unconfirmed: int
    """Moves that broke an image in the search and not when the image was made again; they do not count."""
    forwards: int
    seconds: float
    """Of this process; a resumed run does not count what came before."""
    environment: dict[str, str]
    verdicts: tuple[SpatialVerdict, ...]
    clean_interval: Interval
    interval: Interval
    """Exact 95 % interval of the accuracy under everything that was tried."""

    @classmethod
    def of(cls, verdicts: tuple[SpatialVerdict, ...], **facts: Any) -> SpatialResult:
        """The counts that the verdicts make."""
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
        """Accuracy under the part of the grid within a share ``size`` of the limits."""
        fallen = sum(v.grid is not None and v.grid.size <= size for v in self.verdicts)
        return (self.clean_correct - fallen) / self.n

    def summary(self) -> str:
        """One line for people."""
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, {accuracy(self.robust_correct, self.n)} "
            f"when turned by up to {self.rotation:g} degrees and shifted by up to {self.shift:g} px "
            f"(n = {self.n}, {self.data.name} {self.data.split})"
        )
