"""What a perturbation generator does, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import SummarisedResult
from advkit.models.card import DataFacts, ModelCard, ThreatFacts


class Made(StrictModel):
    """The generator, and where it is."""

    name: str
    """In the model store."""
    hash: str
    files: tuple[str, ...]
    card: ModelCard


class Victim(StrictModel):
    """The classifier that was attacked."""

    name: str
    """As it was given."""
    hash: str


class BlackBoxFacts(StrictModel):
    """What was asked of a classifier that only answers."""

    mode: Literal["static", "dynamic"]
    answers: Literal["labels", "probabilities"]
    limit: int
    """Queries that were allowed."""
    asked: dict[str, int]
    """Those that were made, by where the images came from."""
    agreed: int
    """Test images, of `AdvGanResult.n`, on which the copy says what the classifier says; these questions are
    not counted."""

    @property
    def queries(self) -> int:
        """All of them."""
        return sum(self.asked.values())


class AdvGanResult(SummarisedResult):
    """One perturbation generator and its success."""

    command = "advgan-train"
    schema_name: Literal["advkit/advgan"] = Field("advkit/advgan", alias="schema")
    model: Made
    victim: Victim
    train: DataFacts
    """The training images that the classifier gets right."""
    test: DataFacts
    """The test images that were drawn."""
    settings: dict[str, Any]
    """All parameters, defaults too."""
    threat: ThreatFacts
    target: int | None
    target_name: str
    n: int
    """Test images."""
    clean_correct: int
    judged: int
    """Of those, the ones that are classified correctly and are of another class than the target."""
    hits: int
    """Of those, the ones on which the aim is met."""
    hits_by_noise: int
    """The same for random changes of the same size."""
    rate: float
    """Share of the judged images that are hits."""
    interval: Interval
    """Exact 95 % interval of the rate."""
    becomes: dict[str, int]
    """What the classifier says of the hits."""
    black_box: BlackBoxFacts | None = None
    """None where the classifier's gradients were used."""
    made_per_second: float
    """Adversarial images that the generator makes a second."""
    trained_per_second: float
    """Images a second of training; 0 where this process had nothing left to do."""
    seconds: float
    """Of this process; a resumed run does not count what came before."""
    environment: dict[str, str]

    def summary(self) -> str:
        """One line for people."""
        aim = "misleads it" if self.target is None else f"makes it see {self.target_name!r}"
        return (
            f"the generator, {self.threat.norm} eps {self.threat.eps:.4g}, {aim} on "
            f"{accuracy(self.hits, self.judged)} of {self.judged:,} test images that it classifies correctly"
        )
