"""A robust accuracy must come from attacks with gradients."""

from __future__ import annotations

from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.01
"""Share of the images."""


@check(
    "white-box",
    rank=BLIND,
    summary="robust images that no gradient attack was run on",
    source="Carlini et al. 2019, On Evaluating Adversarial Robustness",
    verdicts_only=True,
)
def white_box(evidence: Evidence) -> Doubt | str | None:
    """Reads the verdicts."""
    if not evidence.robust:
        return None
    if evidence.box is not None:
        return f"the model is a black box that gives {evidence.box.access}: its gradients cannot be used"
    cascade, names = evidence.cascade, {stage.name for stage in evidence.gradient_stages}
    tried = sum(
        any(entry.stage in names for entry in cascade.tried(cascade.ids[index])) for index in evidence.robust
    )
    count = len(evidence.robust)
    detail = f"gradient attacks were run on {tried} of the {count} robust images"
    if cascade.surrogate is not None:
        detail += "; the others used gradients of a surrogate"
    if count - tried <= TOLERATED * len(cascade.images):
        return detail
    if cascade.exhausted:
        return Doubt(f"{detail}, because the budget was spent", Remedy("allow more passes with --budget"))
    return Doubt(detail, Remedy("use gradient attacks", "--attack cascade"))
