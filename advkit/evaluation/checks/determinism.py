"""Outputs that change from pass to pass, or while the model is attacked."""

from __future__ import annotations

import torch

from advkit.core import rng
from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

ENOUGH = 10
"""Gradients to average in a step, for a randomised model."""
LOOKED_AT = 16
SAME, DRIFT = 1e-4, 1e-2
"""Differences of logits, relative to the largest, that rounding alone can cause: between two passes over the
same batch, and between batches of different sizes."""


@check(
    "determinism",
    rank=CAUSE,
    summary="a model that draws random numbers, or keeps a state between passes",
    source="Athalye et al. 2018, stochastic gradients",
)
def determinism(evidence: Evidence) -> Doubt | str | None:
    """Repeats a pass from before the attacks, twice with the same random numbers."""
    cascade = evidence.cascade
    chosen = list(range(min(LOOKED_AT, len(cascade.images))))
    x, _ = evidence.batch(chosen)
    oracle = evidence.oracle(searched=False)
    logits = []
    for _ in range(2):
        with rng.scope(cascade.device, cascade.config.seed, "checks/determinism"):
            logits.append(oracle.logits(x))
    before = cascade.clean[torch.tensor(chosen)].to(x.device)
    scale = float(before.abs().max().clamp(min=1e-12))
    again, since = (float((a - b).abs().max()) / scale for a, b in (logits, (logits[1], before)))
    if again > SAME:
        return Doubt(
            "the model's outputs change from pass to pass even with the same random numbers: it keeps a "
            "state, or uses another source of randomness",
            Remedy("freeze its state, or draw from PyTorch's generator only"),
        )
    if not evidence.facts.deterministic:
        averaged = max((int(s.parameters.get("samples", 1)) for s in evidence.gradient_stages), default=1)
        detail = "the model draws random numbers, so attacks succeed or fail by chance"
        if averaged >= ENOUGH:
            return f"{detail}; but gradients were averaged over {averaged} passes, and confirmations over ten"
        return Doubt(
            detail,
            Remedy(
                "average the gradients (EOT)",
                "--attack autoattack --set parameters.autoattack.version=rand",
            ),
        )
    if since > DRIFT:
        return Doubt(
            f"the model's outputs on the same images changed by {since:.2g} of their size during the "
            "attacks: it keeps a state",
            Remedy("freeze its state"),
        )
    return f"the outputs on {len(chosen)} images are the same after the attacks as before"
