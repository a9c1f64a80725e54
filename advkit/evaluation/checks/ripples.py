"""A loss with ripples, on which the gradient at a point leads nowhere and that of its neighbourhood does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from advkit.attacks.apgd import APGD
from advkit.attacks.losses.margin import margin
from advkit.attacks.perturb import make
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.evidence import FEWEST, Evidence

NEAR = 0.25
"""Radius, in units of eps, of the neighbourhood in which gradients are compared."""
POINTS = 5
"""Random points in it."""
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
    flags = f"--attack {','.join(evidence.attacks)},apgd --set parameters.apgd.smoothing={SMOOTHING:g} "
    remedy = Remedy("average gradients", flags + "--set parameters.apgd.samples=10")
    cosine = float(_agreement(evidence).median())
    detail = f"gradients within {NEAR:g} eps of robust images have a cosine of {cosine:.2f} with each other"
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


def _agreement(evidence: Evidence) -> Tensor:
    """(R,) mean cosine of two gradients of the margin in an image's neighbourhood; 1 where there are none."""
    threat, oracle, seed = evidence.cascade.threat, evidence.oracle(), evidence.cascade.config.seed
    x, rows = evidence.batch(evidence.nearest[:FEWEST])
    near = Threat(threat.norm, NEAR * threat.eps)
    directions = []
    for number in range(POINTS):
        point = near.sample(x, rng.keys(seed, "checks/ripples", rows.sample, number))
        directions.append(normalize(oracle.loss_and_grad(point, rows, margin)[1].flatten(1), dim=1))
    sizes = torch.stack(directions).sum(0).square().sum(1)
    agreement = (sizes - POINTS) / (POINTS * (POINTS - 1))
    return torch.where(sizes > 0, agreement, 1.0).nan_to_num(1.0)
