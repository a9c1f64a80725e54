"""Logits and gradients that are not numbers, where nothing counts as a success."""

from __future__ import annotations

from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence


@check(
    "undefined",
    rank=CAUSE,
    summary="robust images near which logits or gradients are not numbers",
    source="NaN is neither right nor wrong, so what an attack meets there counts as no success",
    verdicts_only=True,
)
def undefined(evidence: Evidence) -> Doubt | str | None:
    """Reads the verdicts of all stages. A black box answers NaN where its queries are used up."""
    if evidence.box is not None or not evidence.robust:
        return None
    cascade = evidence.cascade
    met = sum(any(entry.undefined for entry in cascade.tried(cascade.ids[row])) for row in evidence.robust)
    found = f"on {met} of {len(evidence.robust)} robust images"
    detail = f"the attacks met logits or gradients that are not numbers {found}"
    return Doubt(detail, Remedy("give finite logits and gradients everywhere in [0, 1]")) if met else detail
