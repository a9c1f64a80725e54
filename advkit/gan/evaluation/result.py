"""What was measured of one generator or of several, as a versioned file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from advkit.config import StrictModel, validate
from advkit.errors import DataError
from advkit.models.card import DataFacts

VERSION = 1
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
    """How it is written."""
    floor: float
    """Of real images."""

    def written(self, value: float | None) -> str:
        """A value as text; a dash for none."""
        return "-" if value is None else format(value, self.style).replace("%", " %")


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

    model_config = StrictModel.model_config | {"protected_namespaces": ()}


class GanEvaluationResult(StrictModel):
    """Generators, measured on the same real images by the same judge."""

    schema_name: Literal["advkit/gan-evaluation"] = Field("advkit/gan-evaluation", alias="schema")
    version: int = VERSION
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
    seconds: float
    environment: dict[str, str]

    model_config = StrictModel.model_config | {"populate_by_name": True}

    def as_values(self) -> dict[str, Any]:
        """The whole result as plain values."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def load(cls, path: Path | str) -> GanEvaluationResult:
        """Reads a ``result.json``, or the run folder that holds one.

        Raises:
            DataError: there is none, it is something else, or of a newer version.
        """
        path = Path(path)
        file = path / "result.json" if path.is_dir() else path
        if not file.exists():
            raise DataError(f"there is no result at {file}; give a run folder or a result.json")
        values = json.loads(file.read_text())
        if values.get("schema") != "advkit/gan-evaluation":
            raise DataError(f"{file} is no result of advkit gan-eval or gan-compare; give one")
        if values.get("version", 0) > VERSION:
            raise DataError(
                f"{file} was written by a newer advkit (version {values['version']} of the format, this one "
                f"reads {VERSION}); upgrade advkit to read it"
            )
        return validate(cls, values, str(file))
