"""Accuracy under common corruptions, as a versioned file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson, mean_interval, percent
from advkit.data.result import SubjectResult


class CorruptionVerdict(StrictModel):
    """The verdict on one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["misclassified", "broken", "robust"]
    """Misclassified as it is; misclassified under some corruption; classified correctly under all."""
    wrong: dict[str, tuple[int, ...]] = {}
    """The corruptions under which it is misclassified, each with the severities."""

    @property
    def errors(self) -> int:
        """Of all corruptions and severities."""
        return sum(map(len, self.wrong.values()))


class CorruptionAccuracy(StrictModel):
    """Accuracy under one corruption in one severity."""

    corruption: str
    severity: int
    correct: int
    accuracy: float
    interval: Interval
    """Exact 95 % interval."""


class RelativeErrors(StrictModel):
    """The errors relative to those of another model on the same images."""

    model_hash: str
    name: str
    """As its run names the model."""
    mean_accuracy: float
    """Of that model."""
    errors: dict[str, float | None]
    """By corruption, the errors of all severities divided by that model's; None where that makes none."""
    mean_corruption_error: float | None
    """Their mean (mCE; Hendrycks and Dietterich 2019): below 1 this model makes fewer errors."""


class CorruptionResult(SubjectResult):
    """Accuracy of one model under common corruptions."""

    command = "corrupt"
    counted = {"clean_correct": ("broken", "robust"), "robust_correct": ("robust",)}

    schema_name: Literal["advkit/corruptions"] = Field("advkit/corruptions", alias="schema")
    constants: Literal["mnist-c", "cifar-10-c", "imagenet-c"]
    """The published set whose constants were used."""
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int
    clean_correct: int
    clean_interval: Interval
    mean_accuracy: float
    """Under the corruptions, the mean over all of them and over their severities."""
    interval: Interval
    """95 % interval of it for other images of this kind (`advkit.core.stats.mean_interval`)."""
    robust_correct: int
    """Images classified correctly under every corruption in every severity."""
    rows: tuple[CorruptionAccuracy, ...]
    """By corruption and severity."""
    relative: RelativeErrors | None = None
    """To the baseline, if one was named."""
    forwards: int
    verdicts: tuple[CorruptionVerdict, ...]

    @classmethod
    def of(
        cls,
        verdicts: tuple[CorruptionVerdict, ...],
        corruptions: tuple[str, ...],
        severities: tuple[int, ...],
        **facts: Any,
    ) -> CorruptionResult:
        """A result with the counts of these verdicts."""
        n = len(verdicts)
        clean = sum(verdict.status != "misclassified" for verdict in verdicts)
        wrong = _wrong(verdicts)
        rows = []
        for name in corruptions:
            for severity in severities:
                correct = n - wrong.get((name, severity), 0)
                row = {"accuracy": correct / n, "interval": clopper_pearson(correct, n)}
                rows.append(CorruptionAccuracy(corruption=name, severity=severity, correct=correct, **row))
        return cls(
            **facts,
            corruptions=corruptions,
            severities=severities,
            n=n,
            clean_correct=clean,
            clean_interval=clopper_pearson(clean, n),
            mean_accuracy=sum(row.correct for row in rows) / (n * len(rows)),
            interval=mean_interval(shares(verdicts, len(rows)), 0.0, 1.0).interval,
            robust_correct=sum(verdict.status == "robust" for verdict in verdicts),
            rows=tuple(rows),
            verdicts=verdicts,
        )

    def _miscounted(self) -> str | None:
        wrong = _wrong(self.verdicts)
        for row in self.rows:
            if row.correct != self.n - wrong.get((row.corruption, row.severity), 0):
                return f"{row.corruption} {row.severity}"
        return super()._miscounted()

    @property
    def scores(self) -> list[float]:
        """Of each image the share of corruptions and severities under which it is classified correctly."""
        return shares(self.verdicts, len(self.rows))

    def accuracy_of(self, corruption: str) -> float:
        """The mean over the severities."""
        found = [row.accuracy for row in self.rows if row.corruption == corruption]
        return sum(found) / len(found)

    def summary(self) -> str:
        """One line for people."""
        relative = self.relative
        said = ""
        if relative is not None and relative.mean_corruption_error is not None:
            said = f", mean corruption error {100 * relative.mean_corruption_error:.1f} % of {relative.name}"
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, mean accuracy "
            f"{percent(self.mean_accuracy, self.interval)} under {len(self.corruptions)} corruptions in "
            f"{len(self.severities)} severities{said} (n = {self.n}, {self.data.name} {self.data.split}, "
            f"constants of {self.constants})"
        )


def shares(verdicts: Sequence[CorruptionVerdict], tried: int) -> list[float]:
    """Of each image the share of ``tried`` corruptions under which it is classified correctly."""
    return [1 - verdict.errors / tried for verdict in verdicts]


def _wrong(verdicts: Sequence[CorruptionVerdict]) -> dict[tuple[str, int], int]:
    """By corruption and severity, how many are misclassified."""
    counts: dict[tuple[str, int], int] = {}
    for verdict in verdicts:
        for name, severities in verdict.wrong.items():
            for severity in severities:
                counts[name, severity] = counts.get((name, severity), 0) + 1
    return counts
