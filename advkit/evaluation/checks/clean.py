"""A clean accuracy no better than that of guessing."""

from __future__ import annotations

from advkit.core.stats import lower_limit
from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TAIL = 0.05
"""Probability of a clean accuracy that guessing may reach."""


@check(
    "clean",
    rank=CAUSE,
    summary="a clean accuracy that guessing reaches, or the same answer for all images",
    source="the model and its images must be those that belong together, before any attack",
    verdicts_only=True,
)
def clean(evidence: Evidence) -> Doubt | str | None:
    """Compares the clean accuracy with one class in K; doubts it halfway to 1 at most, however few images."""
    cascade = evidence.cascade
    n, classes = cascade.clean.shape
    right, guessing = int(cascade.correct.sum()), 1 / classes
    answers, labels = (len(named.unique()) for named in (cascade.clean.argmax(1), cascade.images.labels))
    detail = f"{right} of {n} clean images are classified correctly, among {classes} classes"
    if answers == 1 < labels:
        detail = f"all {n} clean images are classified alike, although they are of {labels} classes"
    elif lower_limit(right, n, TAIL) > guessing or right / n > (1 + guessing) / 2:
        return detail
    else:
        detail += ", no better than guessing"
    return Doubt(
        f"{detail}: perhaps the preprocessing or the order of the classes is wrong",
        Remedy("say how the model wants its pixels (--pixel-range, --mean, --std), and compare class names"),
    )
