"""The results of attacks in latent space and of GAN inversion, as versioned files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson
from advkit.core.stored import ConfiguredResult
from advkit.models.card import DataFacts


class Reached(StrictModel):
    """One image."""

    id: int
    """Its position in the split."""
    label: int
    error: float
    """Mean squared error of the reconstruction, for pixels in [0, 1]."""
    start_error: float
    """The least error of the starts before any step: that of random sampling."""
    nearest_error: float
    """Error of the nearest training image."""
    nearest_id: int
    """Its position in the training split."""
    start: int
    """The best start."""


class InversionResult(ConfiguredResult):
    """All images, and means over them."""

    command = "gan-invert"
    schema_name: Literal["advkit/inversion"] = Field("advkit/inversion", alias="schema")
    model: str
    """As given."""
    model_hash: str
    data: DataFacts
    train: DataFacts
    """Source of the nearest images."""
    n: int
    error: float
    """Mean over the images."""
    start_error: float
    nearest_error: float
    nearer: int
    """Images whose reconstruction is closer than the nearest training image."""
    images: tuple[Reached, ...]

    def summary(self) -> str:
        """One line of text."""
        return (
            f"mean squared error {self.error:.4f} over {self.n} images of {self.data.name}; "
            f"{self.nearest_error:.4f} for the nearest training images, {self.start_error:.4f} for the starts"
        )


class JudgedResult(ConfiguredResult):
    """What attacks without a budget found, and how much of it the judge reads as it should."""

    model: str
    model_hash: str
    generator: str
    generator_hash: str
    judge: str
    """Hash of the judge."""
    n: int
    """Images, or examples to make."""
    found: int
    legitimate: int
    """Found examples that show the right class according to the judge."""
    raw_success: float
    """Found examples, as a share of those that were searched for."""
    legitimacy: float
    """legitimate / found"""
    success: float
    """Their product."""
    interval: Interval
    """Exact 95 % interval of ``success``."""


def successes(found: int, legitimate: int, searched: int) -> dict[str, Any]:
    """The counts and shares of a `JudgedResult`, of so many examples that were searched for."""
    return {
        "found": found,
        "legitimate": legitimate,
        "raw_success": found / searched,
        "legitimacy": legitimate / max(found, 1),
        "success": legitimate / searched,
        "interval": clopper_pearson(legitimate, searched),
    }


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


class NaturalResult(JudgedResult):
    """All images and their totals."""

    command = "natural"
    schema_name: Literal["advkit/natural"] = Field("advkit/natural", alias="schema")
    judge_correct: int
    """Original images that the judge classifies correctly."""
    reconstructed: int
    """Images whose reconstruction, the start of the search, has the same class according to the judge."""
    data: DataFacts
    clean_correct: int
    """Correctly classified images; only these are attacked."""
    queries: float
    """Mean queries to the classifier per image."""
    images: tuple[Searched, ...]

    def summary(self) -> str:
        """One line of text."""
        return (
            f"natural adversarial examples that keep the class found for "
            f"{accuracy(self.legitimate, self.clean_correct)} of {self.clean_correct:,} images"
        )


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


class UnrestrictedResult(JudgedResult):
    """All examples and their totals."""

    command = "unrestricted"
    schema_name: Literal["advkit/unrestricted"] = Field("advkit/unrestricted", alias="schema")
    auxiliary: str | None
    auxiliary_hash: str | None
    search: Literal["gradient", "monte-carlo"]
    target: int | None
    target_name: str
    start_wrong: int
    """First images that the classifier misclassifies."""
    start_read: int
    """First images of the requested class according to the judge: the expected legitimacy."""
    raw_interval: Interval
    """Exact 95 % interval of ``raw_success``."""
    legitimacy_interval: Interval
    passes: float
    """Mean forward and backward passes of the classifier per example."""
    examples: tuple[Example, ...]

    def summary(self) -> str:
        """One line of text."""
        effect = "misled" if self.target is None else f"made to predict {self.target_name!r}"
        return (
            f"the classifier is {effect} by {accuracy(self.legitimate, self.n)} of {self.n:,} generated "
            "images that show the requested class"
        )
