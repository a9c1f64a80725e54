"""Vanishing gradients: zero, or too small for float32."""

from __future__ import annotations

from advkit.evaluation.check import CAUSE, Doubt, check
from advkit.evaluation.evidence import TOLERATED, Evidence


@check(
    "gradients",
    rank=CAUSE,
    summary="gradients that are zero, negligible or not finite, at the image or along the attack",
    source="Athalye et al. 2018, vanishing gradients; float32 keeps 24 bits",
)
def gradients(evidence: Evidence) -> Doubt | str | None:
    """Examines the gradient of the attacks' loss, which may vanish where that of the margin does not."""
    trace = evidence.trace
    if trace is None:
        return None
    count = len(trace.clean)
    zero = int((trace.clean == 0).sum())
    clean, along = int(trace.dead(trace.clean).sum()), int(trace.blind.sum())
    if max(clean, along) <= TOLERATED * count:
        return f"sound at {count - clean} of {count} images and, along {trace.stage.name}, at {count - along}"
    what = f"zero at {zero} of {count} images"
    if clean > zero:
        what += f" and vanishing at {clean - zero} more"
    what += f", and mostly so along {trace.stage.name} at {along}"
    if evidence.saturated:
        what += f", while that of the margin is not: {evidence.loss_name} is saturated"
    return Doubt(f"the gradient of {evidence.loss_name} is {what}", evidence.remedy)
