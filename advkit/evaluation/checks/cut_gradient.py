"""A step before the last layer: the answers change, and the gradient says that nothing does."""

from __future__ import annotations

from advkit.evaluation.check import CAUSE, Doubt, check
from advkit.evaluation.evidence import Evidence


@check(
    "cut-gradient",
    rank=CAUSE,
    summary="the answers change in steps, or not as the gradient says: rounding, thresholds, lookups",
    source="Athalye et al. 2018, shattered gradients; finite differences",
)
def cut_gradient(evidence: Evidence) -> Doubt | str | None:
    """Compares the margin's gradient with differences of the margin, near and far."""
    seen = evidence.differences
    if seen is None:
        return None
    count, silent, stepped = len(seen), int(seen.silent.sum()), int(seen.stepped.sum())
    if seen.cut:
        how = ", in steps" if stepped > 0.1 * count else ""
        where = f"; it ends in layer {' and '.join(evidence.cutting)}" if evidence.cutting else ""
        return Doubt(
            f"the gradient is zero at {silent} of {count} images although the answers change{how}{where}",
            evidence.remedy,
        )
    walk = evidence.walk
    led = walk is not None and int(walk.risen.sum()) > 0.9 * len(walk.risen)
    if seen.astray and not led:
        off = int((seen.wrong | seen.stepped).sum())
        return Doubt(
            f"the answers do not change as the gradient says at {off} of {count} images", evidence.remedy
        )
    if stepped:
        return f"the answers change in steps at {stepped} of {count} images, but the gradient leads across"
    return f"the answers change as the gradient says at {count - int(seen.wrong.sum())} of {count} images"
