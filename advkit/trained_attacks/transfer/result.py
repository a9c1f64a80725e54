"""The result of model extraction, as a versioned file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.stats import Interval, accuracy
from advkit.core.stored import ConfiguredResult
from advkit.models.card import DataFacts
from advkit.training.result import CardedModel, NamedModel


class SubstituteResult(ConfiguredResult):
    """One copy and its agreement with the original."""

    command = "substitute"
    schema_name: Literal["advkit/substitute"] = Field("advkit/substitute", alias="schema")
    model: CardedModel
    """The copy."""
    original: NamedModel
    """The classifier that was copied."""
    generator: str | None
    """As given."""
    answers: Literal["labels", "probabilities"]
    limit: int
    """Query limit."""
    asked: dict[str, int]
    """Queries made, by the origin of the images."""
    test: DataFacts
    n: int
    """Test images; their evaluation is not part of the attack and not counted."""
    agreed: int
    """Of those, the ones on which copy and original agree."""
    agreement: float
    interval: Interval
    """Exact 95 % interval of the agreement."""
    copy_correct: int
    original_correct: int
    trained_per_second: float

    @property
    def queries(self) -> int:
        """Total queries."""
        return sum(self.asked.values())

    def summary(self) -> str:
        """One line of text."""
        return (
            f"after {self.queries:,} queries ({self.answers} only) the copy agrees with the original on "
            f"{accuracy(self.agreed, self.n)} of {self.n:,} test images"
        )
