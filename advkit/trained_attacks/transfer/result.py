"""What a copy is worth, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import SummarisedResult
from advkit.models.card import DataFacts, ModelCard


class Copy(StrictModel):
    """The copy, and where it is."""

    name: str
    """In the model store."""
    hash: str
    files: tuple[str, ...]
    card: ModelCard


class Original(StrictModel):
    """The classifier that was copied."""

    name: str
    """As it was given."""
    hash: str


class SubstituteResult(SummarisedResult):
    """One copy, and how much it is like the original."""

    command = "substitute"
    schema_name: Literal["advkit/substitute"] = Field("advkit/substitute", alias="schema")
    model: Copy
    original: Original
    generator: str | None
    """As it was given."""
    settings: dict[str, Any]
    """All parameters, defaults too."""
    answers: Literal["labels", "probabilities"]
    limit: int
    """Queries that were allowed."""
    asked: dict[str, int]
    """Those that were made, by where the images came from."""
    test: DataFacts
    n: int
    """Test images; asking about them is no part of the attack, and not counted."""
    agreed: int
    """Of those, the ones on which copy and original say the same."""
    agreement: float
    interval: Interval
    """Exact 95 % interval of the agreement."""
    copy_correct: int
    original_correct: int
    trained_per_second: float
    seconds: float
    """Of this process; a resumed run does not count what came before."""
    environment: dict[str, str]

    @property
    def queries(self) -> int:
        """All of them."""
        return sum(self.asked.values())

    def summary(self) -> str:
        """One line for people."""
        return (
            f"after {self.queries:,} queries ({self.answers} only) the copy says what the original says on "
            f"{accuracy(self.agreed, self.n)} of {self.n:,} test images"
        )
