"""Random points must not find what gradients missed."""

from __future__ import annotations

from advkit.attacks.perturb import make
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

DRAWS = 8


@check(
    "noise",
    rank=SYMPTOM,
    summary="random points of the ball break images that stood the attacks",
    source="Athalye et al. 2018, section 3.1",
)
def noise(evidence: Evidence) -> Doubt | str | None:
    """A few draws on the images nearest to falling."""
    if not evidence.standing:
        return None
    attack = make("noise", evidence.cascade.threat, {"draws": DRAWS})
    found = evidence.search("noise", attack, evidence.nearest)
    fell = sum(each.broken for each in found)
    detail = f"{fell} of {len(found)} images that stand fall to {DRAWS} random points"
    return Doubt(detail, evidence.remedy) if fell else detail
