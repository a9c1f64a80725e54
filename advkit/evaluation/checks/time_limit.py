"""Attacks that a time limit left out could lower the number."""

from __future__ import annotations

from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence


@check(
    "time-limit",
    rank=BLIND,
    summary="attacks that a time limit left out, without a random sample that bounds what is missing",
    source="an attack that was not run shows nothing",
)
def time_limit(evidence: Evidence) -> Doubt | str | None:
    """Reads what was chosen, and what became of it."""
    seen, sample = evidence.cascade.limited, evidence.cascade.missing
    if seen is None or not seen.weaker or not evidence.robust:
        return None
    if sample is not None:
        return f"{seen.shortened}; a random sample bounds what long attacks find"
    return Doubt(seen.shortened, Remedy("allow more time", seen.flag))
