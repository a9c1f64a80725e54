"""Probabilities in place of logits: attacks lose what is rounded off."""

from __future__ import annotations

import torch

from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

TOLERATED = 0.05
"""Share of the images."""
RESOLUTION = 0.01
"""Largest step between float32 logits, as a share of the typical difference of the two largest."""


@check(
    "outputs",
    rank=CAUSE,
    summary="outputs that rounding spoils: probabilities of exactly 0 or 1, logits with a large offset",
    source="Carlini and Wagner 2017, defensive distillation",
    verdicts_only=True,
)
def outputs(evidence: Evidence) -> Doubt | str | None:
    """Examines the outputs on the clean versions of robust images."""
    box, reading = evidence.box, evidence.model.reading
    if not evidence.robust or (box is not None and box.access == "decisions"):
        return None
    logits = evidence.cascade.clean[torch.tensor(evidence.robust)]
    count = len(logits)
    remedy = Remedy("return logits: leave out the last layer, and --outputs")
    if box is not None:
        remedy = Remedy("return scores with more digits, or attack decisions", "--access decisions")
    if evidence.model.probabilities:
        full = int((logits.amax(1) == 0).sum())
        detail = f"the outputs are probabilities, rounded to 1 on {full} of {count} images"
        return Doubt(detail, remedy) if full > TOLERATED * count else detail
    given = logits[:, 1:] if reading is not None and reading.single else logits
    if bool(((given >= 0) & (given <= 1)).all()):
        full = int(((given == 0) | (given == 1)).any(1).sum())
        if full > TOLERATED * count:
            return Doubt(
                f"all outputs lie in [0, 1], and are exactly 0 or 1 on {full} of {count} images", remedy
            )
    step = float(logits.abs().amax(1).median()) * torch.finfo(torch.float32).eps
    first, second = logits.topk(2, dim=1).values.T
    gap = float((first - second).median())
    if step > RESOLUTION * gap > 0:
        return Doubt(
            f"on {count} images float32 rounds the logits to steps of {step:.2g}, and the two largest differ "
            f"by {gap:.2g} only",
            Remedy("return logits without their offset: z - z.mean(1, keepdim=True)"),
        )
    return (
        f"outputs on {count} images are logits, from {float(logits.min()):.3g} to {float(logits.max()):.3g}"
    )
