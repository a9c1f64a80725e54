"""A loss with ripples, on which the gradient at a point leads nowhere and that of its neighbourhood does."""

from __future__ import annotations

from advkit.attacks.apgd import APGD
from advkit.attacks.perturb import make
from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.differences import RADIUS
from advkit.evaluation.evidence import FEWEST, Evidence

ALIKE, APART = 0.97, 0.4
"""Cosines of two of these gradients: above the first, averaging changes nothing. Below the second, the
gradient at a point is mostly ripples; on hardened networks it is .57 and more."""
SHORT, PLAIN = {"smoothing": 0.5, "samples": 4, "steps": 30}, {"restarts": 4, "steps": 30}
"""Parameters of Auto-PGD with averaged gradients, and without them at the same cost."""
LONG = {"smoothing": 0.5, "samples": 2, "restarts": 5}
"""Those that break most; averages of more points break less in the same time."""
TOLERATED = 1
"""Images that another start may break by chance."""


@check(
    "ripples",
    rank=BLIND,
    summary="gradients that change within a quarter of eps, and lead farther where they are averaged",
    source="Athalye et al. 2018, shattered gradients; Wu et al. 2018, variance-reduced gradients",
    searches=("ripples", "ripples/long"),
)
def ripples(evidence: Evidence) -> Doubt | str | None:
    """Compares gradients at random points around the robust images with the largest margins. Where they are
    not alike, Auto-PGD attacks these images with averaged gradients, and without what it breaks."""
    threat, chosen = evidence.cascade.threat, evidence.nearest[:FEWEST]
    if not chosen or evidence.last is None or threat.norm not in APGD.norms:
        return None
    names = ",".join(dict.fromkeys((*evidence.attacks, "apgd")))
    settings = " ".join(f"--set parameters.apgd.{key}={value}" for key, value in LONG.items())
    remedy = Remedy("average gradients", f"--attack {names} {settings}")
    cosine = float(evidence.agreement.median())
    detail = f"gradients within {RADIUS:g} eps of robust images have a cosine of {cosine:.2f} with each other"
    if cosine > ALIKE:
        return detail
    if cosine > APART:
        found = evidence.search("ripples", make("apgd", threat, SHORT), chosen)
        wrong = [one.index for one in found if one.broken]
        plain = evidence.search("ripples/plain", make("apgd", threat, PLAIN), wrong)
        left = sum(not one.broken for one in plain)
        detail += f", and averaged ones alone break {left} of {len(chosen)}"
        if left <= TOLERATED:
            return detail
    broken = sum(one.broken for one in evidence.search("ripples/long", make("apgd", threat, LONG), chosen))
    return Doubt(f"{detail}: the loss has ripples, and long attacks with averages break {broken}", remedy)
