"""The result of GAN training, as a versioned file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stored import TimedResult
from advkit.gan.monitor import covered
from advkit.models.card import DataFacts

RECENT = 500
"""Steps at the end of training whose mean is reported."""


class StoredNetwork(StrictModel):
    """A network of the game, in the model store."""

    name: str
    hash: str
    parameters: int
    """How many numbers it has."""


class BestGenerator(StrictModel):
    """The EMA generator that was kept."""

    by: str
    """The figure by which it is the best."""
    step: int


class GanTrainingResult(TimedResult):
    """The networks of a GAN or a VAE, and how the training ended."""

    command = "gan-train"
    schema_name: Literal["advkit/gan-training"] = Field("advkit/gan-training", alias="schema")
    config: dict[str, Any]
    """All settings, defaults too."""
    seed: int
    data: DataFacts
    models: dict[str, StoredNetwork]
    best: BestGenerator
    last: dict[str, Any]
    """Means over the last ``steps``, and what the monitor said of the last samples."""
    images_per_second: float
    resumed_at: int
    """Step at which this process began."""
    warnings: tuple[str, ...]


def recent(rows: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> dict[str, Any]:
    """Means over the last steps, a row counting as the steps that it covers; what is known of the samples is
    that of the last ones."""
    first = rows[-1]["step"] - RECENT
    chosen = [(count, row) for count, row in zip(covered(rows), rows, strict=True) if row["step"] > first]
    steps = sum(count for count, _ in chosen)
    means = {name: sum(count * row[name] for count, row in chosen) / steps for name in figures}
    looked = ("diversity", "diversity_within", "fid", "coverage", "missing")
    samples = {name: rows[-1][name] for name in looked if name in rows[-1]}
    return {"steps": steps, **means, **samples}
