"""A step before the last layer: the answers change, and the gradient says that nothing does."""

from __future__ import annotations

from advkit import rng
from advkit.attacks.losses.margin import margin
from advkit.evaluation.check import CAUSE, Doubt, check
from advkit.evaluation.evidence import Evidence
from advkit.evaluation.walk import size_of

LOOKED_AT = 16
NEAR = 1e-3
"""Change of every pixel so small that a smooth model answers in proportion; a quarter of an 8-bit level."""
FAR = 0.25
"""Change of every pixel that no model overlooks."""


@check(
    "cut-gradient",
    rank=CAUSE,
    summary="the answers change in steps, or not as the gradient says: rounding, thresholds, lookups",
    source="Athalye et al. 2018, shattered gradients; finite differences",
)
def cut_gradient(evidence: Evidence) -> Doubt | str | None:
    """Compares the margin's gradient with differences of the margin, near and far."""
    if not evidence.standing:
        return None
    x, rows = evidence.batch(evidence.spread[:LOOKED_AT])
    oracle = evidence.oracle()
    value, grad, logits = oracle.loss_and_grad(x, rows, margin)
    direction = rng.uniform(rng.keys(evidence.cascade.seed, "checks/cut", rows.sample), x.shape[1:]) - 0.5
    near, far = (oracle.logits((x + size * direction.sign()).clamp(0, 1)) for size in (NEAR, FAR))
    ahead = (x + NEAR * grad.sign()).clamp(0, 1)
    promised = (grad * (ahead - x)).flatten(1).sum(1)
    kept = margin(oracle.logits(ahead), rows.label, None) - value
    changes = (far != logits).any(1)
    silent = changes & (size_of(grad) == 0)
    stepped = changes & (near == logits).all(1)
    visible = promised > 1e-4 * logits.abs().amax(1)
    wrong = visible & (kept < promised / 10)
    walk = evidence.walk
    led = walk is not None and float(walk.risen.float().mean()) > 0.9
    count, steps = len(rows), int(stepped.sum())
    if int(silent.sum()) > 0.1 * count:
        where = f"; it ends in layer {' and '.join(evidence.cutting)}" if evidence.cutting else ""
        how = ", and the answers change in steps" if steps > 0.1 * count else ""
        return Doubt(
            f"the gradient is zero at {int(silent.sum())} of {count} images, though the answers change"
            f"{how}{where}",
            evidence.remedy,
        )
    if not led and int((wrong | stepped).sum()) > 0.25 * count:
        return Doubt(
            f"the answers do not change as the gradient says at {int((wrong | stepped).sum())} of {count} "
            "images",
            evidence.remedy,
        )
    if steps:
        return f"the answers change in steps at {steps} of {count} images, but the gradient leads across them"
    agree = int((~visible | ~wrong).sum())
    return f"the answers change as the gradient says at {agree} of {count} images"
