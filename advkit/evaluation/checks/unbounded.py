"""Without a budget every image must fall."""

from __future__ import annotations

from advkit.attacks.perturb import make
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

STEPS = 20
TOLERATED = 0.1
"""Share of the images that may stand."""


@check(
    "unbounded",
    rank=SYMPTOM,
    summary="images that gradients cannot break even where every change is allowed",
    source="Athalye et al. 2018, section 3.1",
)
def unbounded(evidence: Evidence) -> Doubt | str | None:
    """Gradient steps from the original on the loss of the attacks, with nothing but the box around them."""
    if not evidence.standing or not evidence.gradient_stages:
        return None
    chosen = {"steps": STEPS, "start": "original", "loss": evidence.loss_name}
    found = evidence.search("unbounded", make("pgd", evidence.whole, chosen), evidence.spread)
    stand = sum(not each.broken for each in found)
    detail = f"{stand} of {len(found)} images stand {STEPS} gradient steps that may change everything"
    return Doubt(detail, evidence.remedy) if stand > TOLERATED * len(found) else detail
