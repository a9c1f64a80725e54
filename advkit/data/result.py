"""What every result of a classifier on images says."""

from __future__ import annotations

from typing import Literal

from advkit.core.stored import SummarisedResult, TimedResult
from advkit.models.card import DataFacts, ModelCard


class SubjectResult(SummarisedResult, TimedResult):
    """Common fields of what is measured of one classifier, as `advkit.data.subjects.Subject.about` fills them
    in."""

    status: Literal["complete", "partial"]
    """Partial: only a part of the split was evaluated."""
    model_hash: str
    card: ModelCard | None = None
    data: DataFacts
    """The images."""
    n: int
    notes: tuple[str, ...] = ()
    """Observations and assumptions of the loader."""
