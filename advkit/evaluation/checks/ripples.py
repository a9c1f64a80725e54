"""A loss with ripples, on which the gradient at a point leads nowhere and that of its neighbourhood does."""

from __future__ import annotations

from advkit.attacks.apgd import APGD
from advkit.attacks.perturb import make
from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.differences import RADIUS
from advkit.evaluation.evidence import FEWEST, Evidence

ALIKE, APART = 0.97, 0.4
"""Cosines of two of these gradients: above the first, averaging changes nothing. Below the second, the
gradient at a point is mostly ripples; on hardened networks it is .6 and more."""
STEPS, SAMPLES, SMOOTHING = 30, 4, 0.5
"""Of Auto-PGD with averaged gradients."""
TOLERATED = 1
"""Images that another start may break by chance."""


@check(
    "ripples",
    rank=BLIND,
    summary="gradients that change within a quarter of eps, and lead farther where they are averaged",
    source="Athalye et al. 2018, shattered gradients; Wu et al. 2018, variance-reduced gradients",
)
def ripples(evidence: Evidence) -> Doubt | str | None:
    """Compares gradients at random points around the robust images with the largest margins. Where they are
    not alike, Auto-PGD attacks these images with averaged gradients, and without what it breaks."""
    threat, chosen = evidence.cascade.threat, evidence.nearest[:FEWEST]
    if not chosen or evidence.last is None or threat.norm not in APGD.norms:
        return None
    names = ",".join(dict.fromkeys((*evidence.attacks, "apgd")))
    flags = f"--attack {names} --set parameters.apgd.smoothing={SMOOTHING:g} --set parameters.apgd.samples=10"
    remedy = Remedy("average gradients", flags)
    cosine = float(evidence.agreement.median())
    detail = f"gradients within {RADIUS:g} eps of robust images have a cosine of {cosine:.2f} with each other"
    if cosine < APART:
        return Doubt(f"{detail}: the loss has ripples", remedy)
    if cosine > ALIKE:
        return detail
    given = {"loss": "margin", "steps": STEPS}
    smooth = make("apgd", threat, given | {"smoothing": SMOOTHING, "samples": SAMPLES})
    broken = [one.index for one in evidence.search("ripples", smooth, chosen) if one.broken]
    plain = make("apgd", threat, given | {"restarts": SAMPLES})
    left = [one for one in evidence.search("ripples/plain", plain, broken) if not one.broken]
    detail += f", and averaged ones alone break {len(left)} of {len(chosen)}"
    if len(left) > TOLERATED:
        return Doubt(f"{detail}: the loss has ripples", remedy)
    return detail
