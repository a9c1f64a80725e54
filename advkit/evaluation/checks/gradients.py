"""Gradients that are zero, or too faint for float32."""

from __future__ import annotations

from advkit.evaluation.check import CAUSE, Doubt, check
from advkit.evaluation.evidence import TOLERATED, Evidence


@check(
    "gradients",
    rank=CAUSE,
    summary="gradients that are zero, vanish beside the others or are no numbers, at the image or on the way",
    source="Athalye et al. 2018, vanishing gradients; float32 keeps 24 bits",
)
def gradients(evidence: Evidence) -> Doubt | str | None:
    """Looks at the loss that the attacks climb: it may be dead where the model itself is not."""
    walk = evidence.walk
    if walk is None:
        return None
    count = len(walk.clean)
    zero = int((walk.clean == 0).sum())
    clean, along = int(walk.dead(walk.clean).sum()), int(walk.blind.sum())
    if max(clean, along) <= TOLERATED * count:
        return f"alive at {count - clean} of {count} images and, along {walk.stage.name}, at {count - along}"
    what = f"zero at {zero} of {count} images"
    if clean > zero:
        what += f" and vanishing at {clean - zero} more"
    what += f", and mostly so along {walk.stage.name} at {along}"
    if evidence.saturated:
        what += f", while that of the margin lives: {evidence.loss_name} is saturated"
    return Doubt(f"the gradient of {evidence.loss_name} is {what}", evidence.remedy)
