"""Without a bound on the perturbation, every image must be broken."""

from __future__ import annotations

from advkit.attacks.perturb import make
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

STEPS = 20
TOLERATED = 0.1
"""Share of the images that may remain robust."""


@check(
    "unbounded",
    rank=SYMPTOM,
    summary="robust images that a gradient attack does not break even without a bound",
    source="Athalye et al. 2018, section 3.1",
)
def unbounded(evidence: Evidence) -> Doubt | str | None:
    """Gradient steps from the original on the attacks' loss, constrained to [0, 1] only."""
    if not evidence.robust or not evidence.gradient_stages:
        return None
    chosen = {"steps": STEPS, "start": "original", "loss": evidence.loss_name}
    found = evidence.search("unbounded", make("pgd", evidence.whole, chosen), evidence.spread)
    robust = sum(not each.broken for each in found)
    detail = f"{robust} of {len(found)} images remain robust under {STEPS} unbounded gradient steps"
    return Doubt(detail, evidence.remedy) if robust > TOLERATED * len(found) else detail
