"""Successes that the search believed in and the model itself did not repeat."""

from __future__ import annotations

from advkit.evaluation.check import BLIND, Doubt, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.02
"""Share of the successes."""


@check(
    "confirmation",
    rank=BLIND,
    summary="successes of the search that the model did not repeat on the exact image",
    source="every success is confirmed by the model itself, in its own precision",
)
def confirmation(evidence: Evidence) -> Doubt | str | None:
    """Reads the counts of all searches. That rounding to 8 bits undoes some is no fault of the search."""
    cascade = evidence.cascade
    lost = cascade.noticed - cascade.confirmed
    detail = (
        f"the model itself repeats {cascade.confirmed} of {cascade.noticed} clear successes of the search"
        f"{', on images of 8 bits' if cascade.eight_bit else ''}"
    )
    if lost <= TOLERATED * max(cascade.noticed, 50) or cascade.eight_bit:
        return detail
    return Doubt(
        f"{detail}: the search works on something else than the model",
        "search in the model's own precision: --precision float32",
    )
