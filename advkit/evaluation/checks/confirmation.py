"""Successes that the search believed in and the model itself did not repeat."""

from __future__ import annotations

from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.1
"""Share of the images that stand."""


@check(
    "confirmation",
    rank=BLIND,
    summary="images that stand although the search believed to have broken them",
    source="successes count when the model itself confirms them",
)
def confirmation(evidence: Evidence) -> Doubt | str | None:
    """Reads the last verdict of each. That rounding to 8 bits undoes successes is no fault of the search."""
    cascade = evidence.cascade
    last = [tried[-1] for i in evidence.standing if (tried := cascade.tried(cascade.ids[i]))]
    refuted = sum(entry.refuted > 0 for entry in last)
    if not cascade.noticed:
        return "the search saw no success, so none was refuted"
    bits = " on images of 8 bits" if cascade.eight_bit else ""
    detail = (
        f"{cascade.confirmed} of {cascade.noticed} clear successes of the search were repeated by the model "
        f"itself{bits}; {refuted} of {len(last)} images stand where one was not"
    )
    if refuted <= max(1, TOLERATED * len(last)) or cascade.eight_bit:
        return detail
    return Doubt(
        f"{detail}, so the search works on something else than the model",
        Remedy("search in the model's own precision", "--precision float32"),
    )
