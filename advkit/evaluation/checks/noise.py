"""Random points must not succeed where gradient attacks failed."""

from __future__ import annotations

from advkit.attacks.perturb import make
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

DRAWS = 8


@check(
    "noise",
    rank=SYMPTOM,
    summary="robust images that random points of the ball break",
    source="Athalye et al. 2018, section 3.1",
    searches=("noise",),
)
def noise(evidence: Evidence) -> Doubt | str | None:
    """A few draws for the robust images with the largest margins."""
    if not evidence.robust:
        return None
    attack = make("noise", evidence.cascade.threat, {"draws": DRAWS})
    found = evidence.search("noise", attack, evidence.nearest)
    broken = sum(each.broken for each in found)
    detail = f"{broken} of {len(found)} robust images are broken by {DRAWS} random points"
    return Doubt(detail, evidence.remedy) if broken else detail
