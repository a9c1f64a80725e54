"""The result of AdvGAN training, as a versioned file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import ConfiguredResult
from advkit.models.card import DataFacts, ThreatFacts
from advkit.training.result import CardedModel, NamedModel


class BlackBoxFacts(StrictModel):
    """The queries to a black-box classifier."""

    mode: Literal["static", "dynamic"]
    answers: Literal["labels", "probabilities"]
    limit: int
    """Query limit."""
    asked: dict[str, int]
    """Queries made, by the origin of the images."""
    agreed: int
    """Test images, of `AdvGanResult.n`, on which copy and classifier agree; these queries are not counted."""

    @property
    def queries(self) -> int:
        """Total queries."""
        return sum(self.asked.values())


class AdvGanResult(ConfiguredResult):
    """One perturbation generator and its success."""

    command = "advgan-train"
    schema_name: Literal["advkit/advgan"] = Field("advkit/advgan", alias="schema")
    model: CardedModel
    victim: NamedModel
    """The classifier that was attacked."""
    train: DataFacts
    """The training images that are classified correctly."""
    test: DataFacts
    """The sampled test images."""
    threat: ThreatFacts
    target: int | None
    target_name: str
    n: int
    """Test images."""
    clean_correct: int
    judged: int
    """Of those, the correctly classified ones of other classes than the target."""
    hits: int
    """Of those, the ones on which the attack succeeds."""
    hits_by_noise: int
    """The same for random noise of the same size."""
    rate: float
    """Share of the judged images that are hits."""
    interval: Interval
    """Exact 95 % interval of the rate."""
    becomes: dict[str, int]
    """Predicted classes of the hits."""
    black_box: BlackBoxFacts | None = None
    """None where the classifier's gradients were used."""
    made_per_second: float
    """Adversarial images per second of the generator."""
    trained_per_second: float
    """Training images per second; 0 where this process had nothing left to do."""

    def summary(self) -> str:
        """One line of text."""
        effect = "misleads it" if self.target is None else f"makes it predict {self.target_name!r}"
        return (
            f"the generator, {self.threat.norm} eps {self.threat.eps:.4g}, {effect} on "
            f"{accuracy(self.hits, self.judged)} of {self.judged:,} test images that it classifies correctly"
        )
