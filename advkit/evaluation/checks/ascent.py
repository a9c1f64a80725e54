"""An attack that climbs must arrive higher than it began."""

from __future__ import annotations

from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.2
"""Share of the images; on a random path it is a half."""


@check(
    "ascent",
    rank=SYMPTOM,
    summary="the loss is no higher at the end of an attack than at its beginning",
    source="Carlini et al. 2019, On Evaluating Adversarial Robustness",
)
def ascent(evidence: Evidence) -> Doubt | str | None:
    """Follows a few steps of the attack itself."""
    walk = evidence.walk
    if walk is None:
        return None
    count, risen = len(walk.risen), int(walk.risen.sum())
    detail = f"the loss rises along {walk.stage.name} at {risen} of {count} images"
    failed = count - risen
    if failed < count and failed <= max(1, TOLERATED * count):
        return detail
    return Doubt(f"{detail} only", evidence.remedy)
