"""What a certification proved, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson
from advkit.core.stored import SummarisedResult
from advkit.models.card import DataFacts, ModelCard, ThreatFacts
from advkit.verify.certification.settings import Method


class CertifiedVerdict(StrictModel):
    """What is proved of one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["misclassified", "certified", "undecided"]
    """Wrong as it is; right on the whole ball; right, and not proved to be so on the whole ball."""
    method: Literal["interval", "linear", "optimised"] | None = None
    """The bounds by which the margin was found."""
    margin: float | None = None
    """Everywhere in the ball the true logit is more than this above the others, if it is above 0: the proved
    bound, less all rounding."""
    rounding: float | None = None
    """What was deducted from it for the model's own float32 arithmetic."""


class MethodCount(StrictModel):
    """One method, on the images that were not proved when its turn came."""

    name: str
    tried: int
    proved: int


class CertificationResult(SummarisedResult):
    """Certified accuracy of one model under one threat model: a lower bound of its robust accuracy."""

    command = "certify"

    schema_name: Literal["advkit/certification"] = Field("advkit/certification", alias="schema")
    status: Literal["complete", "partial"]
    """Partial: only a part of the split was asked for."""
    threat: ThreatFacts
    method: Method
    model_hash: str
    card: ModelCard | None
    data: DataFacts
    n: int
    clean_correct: int
    certified_correct: int
    methods: tuple[MethodCount, ...]
    notes: tuple[str, ...] = ()
    """What the loader found and assumed."""
    seconds: float
    """Of this process; a resumed run does not count what came before."""
    environment: dict[str, str]
    verdicts: tuple[CertifiedVerdict, ...]
    clean_accuracy: float
    certified_accuracy: float
    clean_interval: Interval
    """Exact 95 % interval of the clean accuracy."""
    interval: Interval
    """Exact 95 % interval of the certified accuracy."""

    @classmethod
    def of(
        cls, verdicts: tuple[CertifiedVerdict, ...], methods: tuple[str, ...], **facts: Any
    ) -> CertificationResult:
        """The counts that the verdicts make."""
        n, right = len(verdicts), sum(verdict.status != "misclassified" for verdict in verdicts)
        proved = [verdict.method for verdict in verdicts if verdict.status == "certified"]
        counts, left = [], right
        for name in methods:
            done = proved.count(name)  # type: ignore[arg-type]
            counts.append(MethodCount(name=name, tried=left, proved=done))
            left -= done
        return cls(
            **facts,
            n=n,
            clean_correct=right,
            certified_correct=len(proved),
            methods=tuple(counts),
            verdicts=verdicts,
            clean_accuracy=right / n,
            certified_accuracy=len(proved) / n,
            clean_interval=clopper_pearson(right, n),
            interval=clopper_pearson(len(proved), n),
        )

    @property
    def undecided(self) -> int:
        """Images that are classified correctly and not proved."""
        return self.clean_correct - self.certified_correct

    def summary(self) -> str:
        """One line for people."""
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, certified accuracy "
            f"{accuracy(self.certified_correct, self.n)} at {self.threat.norm} eps {self.threat.eps:.4g} "
            f"(n = {self.n}, {self.data.name} {self.data.split})"
        )
