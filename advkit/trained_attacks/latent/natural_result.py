"""How often natural adversarial examples are found and how often they are legitimate, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import SummarisedResult
from advkit.models.card import DataFacts


class Searched(StrictModel):
    """One correctly classified image."""

    id: int
    """Its position in the split."""
    label: int
    found: bool
    """A misclassified image was found."""
    said: int
    """Its predicted class."""
    judged: int
    """Its class according to the judge."""
    distance: float
    """From the image's own latent vector, in units of the mean distance of a sample from the prior's mean."""
    queries: int
    """Queries to the classifier."""


class NaturalResult(SummarisedResult):
    """All images and their totals."""

    command = "natural"
    schema_name: Literal["advkit/natural"] = Field("advkit/natural", alias="schema")
    model: str
    model_hash: str
    generator: str
    generator_hash: str
    judge: str
    """Hash of the judge."""
    judge_correct: int
    """Original images that the judge classifies correctly."""
    reconstructed: int
    """Images whose reconstruction, the start of the search, has the same class according to the judge."""
    data: DataFacts
    settings: dict[str, Any]
    n: int
    clean_correct: int
    """Correctly classified images; only these are attacked."""
    found: int
    legitimate: int
    """Found examples that still have the same class according to the judge."""
    raw_success: float
    """found / clean_correct"""
    legitimacy: float
    """legitimate / found"""
    success: float
    """Their product, legitimate / clean_correct."""
    interval: Interval
    """Exact 95 % interval of ``success``."""
    queries: float
    """Mean queries to the classifier per image."""
    images: tuple[Searched, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line of text."""
        return (
            f"natural adversarial examples that keep the class found for "
            f"{accuracy(self.legitimate, self.clean_correct)} of {self.clean_correct:,} images"
        )
