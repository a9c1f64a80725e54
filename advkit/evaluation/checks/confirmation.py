"""Successes of the search that the model itself does not confirm."""

from __future__ import annotations

from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.1
"""Share of the robust images."""


@check(
    "confirmation",
    rank=BLIND,
    summary="robust images for which the search found a success that the model did not confirm",
    source="successes count when the model itself confirms them",
    verdicts_only=True,
)
def confirmation(evidence: Evidence) -> Doubt | str | None:
    """Reads the last verdict of each. Successes undone by rounding to 8 bits are no fault of the search."""
    cascade = evidence.cascade
    last = [tried[-1] for i in evidence.robust if (tried := cascade.tried(cascade.ids[i]))]
    refuted = sum(entry.refuted > 0 for entry in last)
    if not cascade.noticed:
        return "the search found no success, so none was refuted"
    bits = " on images of 8 bits" if cascade.config.eight_bit else ""
    detail = (
        f"{cascade.confirmed} of {cascade.noticed} clear successes of the search were confirmed by the "
        f"model itself{bits}; {refuted} of {len(last)} robust images had one that was not"
    )
    if refuted <= max(1, TOLERATED * len(last)) or cascade.config.eight_bit:
        return detail
    return Doubt(
        f"{detail}, so the search uses a function that differs from the model",
        Remedy("search in the model's own precision", "--precision float32"),
    )
