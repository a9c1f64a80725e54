"""How often natural adversarial examples are found and how often they are legitimate, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import SummarisedResult
from advkit.models.card import DataFacts


class Searched(StrictModel):
    """One image that the classifier gets right."""

    id: int
    """Its position in the split."""
    label: int
    found: bool
    """An image was found that the classifier calls something else."""
    said: int
    """What it calls it."""
    judged: int
    """What the judge sees in it."""
    distance: float
    """From the image's own latent vector, as a share of how far a drawn one is from the mean."""
    queries: int
    """How often the classifier was asked."""


class NaturalResult(SummarisedResult):
    """All images, and what they come to."""

    command = "natural"
    schema_name: Literal["advkit/natural"] = Field("advkit/natural", alias="schema")
    model: str
    model_hash: str
    generator: str
    generator_hash: str
    judge: str
    """Hash of the judge."""
    judge_correct: int
    """Of the images themselves, those that the judge reads right."""
    reconstructed: int
    """Images whose reconstruction, where the search begins, shows the same digit to the judge."""
    data: DataFacts
    settings: dict[str, Any]
    n: int
    clean_correct: int
    """Images that the classifier gets right; only these are searched."""
    found: int
    legitimate: int
    """Of those that were found, the ones in which the judge still sees the digit."""
    raw_success: float
    """found / clean_correct"""
    legitimacy: float
    """legitimate / found"""
    success: float
    """Their product, legitimate / clean_correct."""
    interval: Interval
    """Exact 95 % interval of ``success``."""
    queries: float
    """To the classifier, mean of the images."""
    images: tuple[Searched, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line for people."""
        return (
            f"the classifier is misled on {accuracy(self.legitimate, self.clean_correct)} of "
            f"{self.clean_correct:,} images by one that still shows the digit"
        )
