"""Shattered gradients: the logits change although the gradient is zero or wrong."""

from __future__ import annotations

from advkit.evaluation.check import CAUSE, Doubt, check
from advkit.evaluation.evidence import Evidence


@check(
    "cut-gradient",
    rank=CAUSE,
    summary="the logits change in steps, or not as the gradient predicts: rounding, thresholds, lookups",
    source="Athalye et al. 2018, shattered gradients; finite differences",
)
def cut_gradient(evidence: Evidence) -> Doubt | str | None:
    """Compares the margin's gradient with finite differences, small and large."""
    seen = evidence.differences
    if seen is None:
        return None
    count, silent, stepped = len(seen), int(seen.silent.sum()), int(seen.stepped.sum())
    if seen.cut:
        how = ", in steps" if stepped > 0.1 * count else ""
        where = f"; it is blocked by layer {' and '.join(evidence.cutting)}" if evidence.cutting else ""
        return Doubt(
            f"the gradient is zero at {silent} of {count} images although the logits change{how}{where}",
            evidence.remedy,
        )
    trace = evidence.trace
    led = trace is not None and int(trace.risen.sum()) > 0.9 * len(trace.risen)
    if seen.astray and not led:
        off = int((seen.wrong | seen.stepped).sum())
        return Doubt(
            f"the logits do not change as the gradient predicts at {off} of {count} images", evidence.remedy
        )
    if stepped:
        return f"the logits change in steps at {stepped} of {count} images, but the attack increases its loss"
    return f"the logits change as the gradient predicts at {count - int(seen.wrong.sum())} of {count} images"
