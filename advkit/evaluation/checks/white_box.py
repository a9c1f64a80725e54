"""A number without gradients is the number of an attacker who was not trying."""

from __future__ import annotations

from advkit.evaluation.check import BLIND, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.01
"""Share of the images."""


@check(
    "white-box",
    rank=BLIND,
    summary="images that stand and that no attack with gradients was tried on",
    source="Carlini et al. 2019, On Evaluating Adversarial Robustness",
)
def white_box(evidence: Evidence) -> Doubt | str | None:
    """Reads the verdicts."""
    if not evidence.standing:
        return None
    cascade, names = evidence.cascade, {stage.name for stage in evidence.gradient_stages}
    tried = sum(
        any(entry.stage in names for entry in cascade.tried(cascade.ids[index]))
        for index in evidence.standing
    )
    count = len(evidence.standing)
    detail = f"attacks with gradients were tried on {tried} of the {count} images that stand"
    if cascade.surrogate is not None:
        detail += "; the others saw those of a surrogate"
    if count - tried <= TOLERATED * len(cascade.images):
        return detail
    if cascade.exhausted:
        return Doubt(f"{detail}, because the budget was spent", Remedy("allow more passes with --budget"))
    return Doubt(detail, Remedy("let attacks see the gradients", "--attack cascade"))
