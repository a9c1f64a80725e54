"""A gradient attack must increase its loss."""

from __future__ import annotations

from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.2
"""Share of the images; on a random path it is a half."""


@check(
    "ascent",
    rank=SYMPTOM,
    summary="the loss is no larger at the end of an attack than at its start",
    source="Carlini et al. 2019, On Evaluating Adversarial Robustness",
)
def ascent(evidence: Evidence) -> Doubt | str | None:
    """Traces a few steps of the attack."""
    trace = evidence.trace
    if trace is None:
        return None
    count, risen = len(trace.risen), int(trace.risen.sum())
    detail = f"the loss rises along {trace.stage.name} at {risen} of {count} images"
    failed = count - risen
    if failed < count and failed <= max(1, TOLERATED * count):
        return detail
    return Doubt(f"{detail} only", evidence.remedy)
