"""What was measured of one generator or of several, as a versioned file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import accuracy
from advkit.core.stored import TimedResult
from advkit.models.card import DataFacts

GRID_FILE = "grid.png"
"""Samples, in the folder of each generator."""
NEAREST_FILE = "nearest.png"
"""Samples above their nearest training images, likewise."""


class FigureFacts(StrictModel):
    """A figure, what it is called, and its floor."""

    key: str
    name: str
    metric: str
    better: Literal["lower", "higher", "floor"]
    style: str
    """How it is written, as in `advkit.gan.metric.Figure`."""
    floor: float
    """Of real images."""

    def written(self, value: float | None, n: int) -> str:
        """A value as text, of ``n`` real images; a dash for none."""
        if value is None:
            return "-"
        if self.style == "accuracy":
            return accuracy(round(value * n), n)
        return format(value, self.style).replace("%", " %")


class Judged(StrictModel):
    """One generator."""

    name: str
    """As the user called it."""
    hash: str
    role: str
    architecture: str
    parameters: int
    """Of the generator or decoder alone."""
    classes: int | None
    """Classes that it was asked for in equal shares; None for an unconditional one."""
    images_seen: int | None
    """Real images that its training took in."""
    training_seconds: float | None
    values: dict[str, float]
    """By the keys of the figures."""
    histogram: tuple[float, ...]
    """Share of each class as the judge sees it; empty where the classes are not the judge's."""
    folder: str
    """In the run folder: its pictures."""


class GanEvaluationResult(TimedResult):
    """Generators, measured on the same real images by the same judge."""

    command = "gan-eval"

    schema_name: Literal["advkit/gan-evaluation"] = Field("advkit/gan-evaluation", alias="schema")
    judge: str
    """Hash of the judge. Figures of other judges are not to be compared with these."""
    judge_accuracy: float | None
    """Share of the real images that it reads right; None where the classes are no digits."""
    real: DataFacts
    """What generated images are compared with."""
    train: DataFacts
    """Where the floor's images come from, and the neighbours."""
    n: int
    """Generated images, and as many real ones."""
    asked: int
    """As many would have been taken, had there been enough real ones."""
    seed: int
    figures: tuple[FigureFacts, ...]
    skipped: dict[str, str]
    """Metrics that were left out, and why."""
    generators: tuple[Judged, ...]
    class_names: tuple[str, ...]
    real_histogram: tuple[float, ...]
    """Share of each class in the training split."""
