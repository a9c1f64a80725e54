"""How often unrestricted adversarial examples are found and legitimate, as a versioned file."""

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
    """The class that the generator was asked for."""
    start_said: int
    """What the classifier calls the image of the latent vector that was drawn first."""
    start_judged: int
    """What the judge sees in that."""
    found: bool
    said: int
    """What the classifier calls the image that is kept."""
    judged: int
    """What the judge sees in it."""
    passes: int
    """Of the classifier, both ways."""


class UnrestrictedResult(SummarisedResult):
    """All examples, and what they come to."""

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
    """Examples that were tried."""
    start_wrong: int
    """Of the images drawn first, those that the classifier takes for another class than the one asked for."""
    start_read: int
    """Of the images drawn first, those in which the judge sees the class asked for: what legitimacy can be
    expected to come to."""
    found: int
    legitimate: int
    """Of those that were found, the ones in which the judge sees the class asked for."""
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
    """Of the classifier, both ways, mean of the examples."""
    examples: tuple[Example, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line for people."""
        aim = "misled" if self.target is None else f"made to see {self.target_name!r}"
        return (
            f"the classifier is {aim} by {accuracy(self.legitimate, self.n)} of {self.n:,} generated images "
            "that show the class asked for"
        )
