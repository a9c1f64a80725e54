"""Answers that change from pass to pass, or while the model is attacked."""

from __future__ import annotations

import torch

from advkit.core import rng
from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

ENOUGH = 10
"""Gradients to average in a step, for a randomised model."""
LOOKED_AT = 16
SAME, DRIFT = 1e-4, 1e-2
"""Differences of logits, in units of the largest, that arithmetic alone makes: between two passes over the
same batch, and between batches of other sizes."""


@check(
    "determinism",
    rank=CAUSE,
    summary="a model that draws random numbers, or keeps a state from pass to pass",
    source="Athalye et al. 2018, stochastic gradients",
)
def determinism(evidence: Evidence) -> Doubt | str | None:
    """Asks again what was asked before the attacks, and twice from the same random numbers."""
    cascade = evidence.cascade
    chosen = list(range(min(LOOKED_AT, len(cascade.images))))
    x, _ = evidence.batch(chosen)
    oracle = evidence.oracle(searched=False)
    told = []
    for _ in range(2):
        with rng.scope(cascade.device, cascade.seed, "checks/determinism"):
            told.append(oracle.logits(x))
    before = cascade.clean[torch.tensor(chosen)].to(x.device)
    scale = float(before.abs().max().clamp(min=1e-12))
    again, since = (float((a - b).abs().max()) / scale for a, b in (told, (told[1], before)))
    if again > SAME:
        return Doubt(
            "the model's answers change from pass to pass even when its random numbers do not: it keeps a "
            "state, or draws from elsewhere",
            Remedy("freeze what it keeps between passes, or draw from PyTorch's generator only"),
        )
    if not evidence.facts.deterministic:
        averaged = max((int(s.parameters.get("samples", 1)) for s in evidence.gradient_stages), default=1)
        said = "the model draws random numbers, so that attacks succeed and fail by luck"
        if averaged >= ENOUGH:
            return f"{said}; but gradients were averaged over {averaged} passes, and successes over ten"
        return Doubt(
            said,
            Remedy(
                "average the gradients (EOT)",
                "--attack autoattack --set parameters.autoattack.version=rand",
            ),
        )
    if since > DRIFT:
        return Doubt(
            f"the model's answers to the same images changed by {since:.2g} of their size while it was "
            "attacked: it keeps a state",
            Remedy("freeze what it keeps between passes"),
        )
    return f"the answers to {len(chosen)} images are the same after the attacks as before"
