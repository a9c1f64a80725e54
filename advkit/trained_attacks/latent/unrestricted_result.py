"""The success rate of unrestricted adversarial examples, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import SummarisedResult


class Example(StrictModel):
    """One example, found or not."""

    id: int
    """Its number, on which its latent vector depends."""
    label: int
    """The requested class."""
    start_said: int
    """Predicted class of the image of the first latent vector."""
    start_judged: int
    """Its class according to the judge."""
    found: bool
    said: int
    """Predicted class of the returned image."""
    judged: int
    """Its class according to the judge."""
    passes: int
    """Forward and backward passes of the classifier."""


class UnrestrictedResult(SummarisedResult):
    """All examples and their totals."""

    command = "unrestricted"
    schema_name: Literal["advkit/unrestricted"] = Field("advkit/unrestricted", alias="schema")
    model: str
    model_hash: str
    generator: str
    generator_hash: str
    auxiliary: str | None
    auxiliary_hash: str | None
    judge: str
    """Hash of the judge."""
    search: Literal["gradient", "monte-carlo"]
    target: int | None
    target_name: str
    settings: dict[str, Any]
    """All parameters, defaults too."""
    n: int
    """Number of examples."""
    start_wrong: int
    """First images that the classifier misclassifies."""
    start_read: int
    """First images of the requested class according to the judge: the expected legitimacy."""
    found: int
    legitimate: int
    """Found examples of the requested class according to the judge."""
    raw_success: float
    """found / n"""
    raw_interval: Interval
    """Exact 95 % interval of ``raw_success``."""
    legitimacy: float
    """legitimate / found"""
    legitimacy_interval: Interval
    success: float
    """Their product, legitimate / n."""
    interval: Interval
    """Exact 95 % interval of ``success``."""
    passes: float
    """Mean forward and backward passes of the classifier per example."""
    examples: tuple[Example, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line of text."""
        effect = "misled" if self.target is None else f"made to predict {self.target_name!r}"
        return (
            f"the classifier is {effect} by {accuracy(self.legitimate, self.n)} of {self.n:,} generated "
            "images that show the requested class"
        )
