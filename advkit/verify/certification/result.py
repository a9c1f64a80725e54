"""The result of a certification, as a versioned file."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, bracketed, clopper_pearson
from advkit.data.result import SubjectResult
from advkit.models.card import ThreatFacts
from advkit.verify.certification.settings import Method


class CertifiedVerdict(StrictModel):
    """The verdict on one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["misclassified", "broken", "certified", "undecided"]
    """Misclassified; classified correctly, with an adversarial example in the ball; certified on the whole
    ball; neither."""
    method: Literal["interval", "linear", "optimised", "complete"] | None = None
    """The bounds that gave the margin, or branch and bound."""
    margin: float | None = None
    """Lower bound, on the ball, of the true logit minus the largest other, less all rounding errors; above 0
    the image is certified. None: there is no bound."""
    rounding: float | None = None
    """The deduction for the rounding of the model's own float32 pass."""
    subproblems: int | None = None
    """That branch and bound bounded; None without it."""


def finite(bound: float) -> float | None:
    """A bound as results have it: None where there is none, as where values may overflow."""
    return bound if math.isfinite(bound) else None


class MethodCount(StrictModel):
    """One method, on the images that earlier methods did not certify."""

    name: str
    tried: int
    proved: int


class CertificationResult(SubjectResult):
    """Certified accuracy of one model under one threat model: a lower bound of its robust accuracy."""

    command = "certify"
    counted = {"clean_correct": ("certified", "undecided"), "certified_correct": ("certified",)}
    added = ("broken_correct",)

    schema_name: Literal["advkit/certification"] = Field("advkit/certification", alias="schema")
    threat: ThreatFacts
    method: Method
    clean_correct: int
    certified_correct: int
    broken_correct: int = 0
    """Images with an adversarial example, which only the method ``complete`` looks for."""
    methods: tuple[MethodCount, ...]
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
        """A result with the counts of these verdicts."""
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
            broken_correct=sum(verdict.status == "broken" for verdict in verdicts),
            methods=tuple(counts),
            verdicts=verdicts,
            clean_accuracy=right / n,
            certified_accuracy=len(proved) / n,
            clean_interval=clopper_pearson(right, n),
            interval=clopper_pearson(len(proved), n),
        )

    @property
    def undecided(self) -> int:
        """Images that are classified correctly, neither certified nor broken."""
        return self.clean_correct - self.certified_correct - self.broken_correct

    @property
    def between(self) -> str:
        """What is known of the robust accuracy, in words."""
        if self.method != "complete":
            return f"certified accuracy {accuracy(self.certified_correct, self.n)}"
        return bracketed(self.certified_correct, self.clean_correct - self.broken_correct, self.n)

    def summary(self) -> str:
        """One line for people."""
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, {self.between} at {self.threat.norm} "
            f"eps {self.threat.eps:.4g} (n = {self.n}, {self.data.name} {self.data.split})"
        )
