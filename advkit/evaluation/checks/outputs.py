"""Probabilities where logits should be: what is rounded off in them is lost to attacks."""

from __future__ import annotations

import torch

from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.05
"""Share of the images."""


@check(
    "outputs",
    rank=CAUSE,
    summary="a model that gives out probabilities, rounded to exactly 0 or 1",
    source="Carlini and Wagner 2017, defensive distillation",
)
def outputs(evidence: Evidence) -> Doubt | str | None:
    """Looks at the clean answers of the images that stand."""
    if not evidence.standing:
        return None
    said = evidence.cascade.clean[torch.tensor(evidence.standing)]
    count = len(said)
    remedy = Remedy("give the logits: leave out the last layer, and --outputs")
    if evidence.model.probabilities:
        full = int((said.amax(1) == 0).sum())
        detail = f"the model gives probabilities, and they are rounded to 1 on {full} of {count} images"
        return Doubt(detail, remedy) if full > TOLERATED * count else detail
    if bool(((said >= 0) & (said <= 1)).all()):
        full = int(((said == 0) | (said == 1)).any(1).sum())
        if full > TOLERATED * count:
            return Doubt(
                f"all answers lie in [0, 1], and are exactly 0 or 1 on {full} of {count} images", remedy
            )
    return (
        f"the answers to {count} images are logits, from {float(said.min()):.3g} to {float(said.max()):.3g}"
    )
