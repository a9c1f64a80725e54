"""Can this number be trusted? Doubts stand beside the number."""

from __future__ import annotations

import torch
from torch import nn

from advkit.attacks.attack import Rows
from advkit.attacks.losses.ce import ce
from advkit.attacks.oracle import Oracle
from advkit.attacks.perturb import device_of
from advkit.data.data import Data
from advkit.evaluation.result import Check

LOOKED_AT = 64
"""Images whose gradient is looked at."""


def gradients(model: nn.Module, oracle: Oracle, data: Data) -> Check:
    """Gradients that are exactly zero, or not numbers, blind every gradient attack."""
    device = device_of(model)
    few = torch.arange(min(LOOKED_AT, len(data)))
    x, label = data.batch(few, device)
    ids = data.ids[few].to(device)
    _, grad, _ = oracle.loss_and_grad(x, Rows.untargeted(x, label, ids, ids), ce)
    flat = grad.flatten(1)
    bad = int(((flat == 0).all(1) | ~flat.isfinite().all(1)).sum())
    return Check(
        name="gradients",
        verdict="doubt" if bad else "ok",
        detail=f"zero or undefined at {bad} of {len(x)} images"
        + ("; gradient attacks are blind there, so the robust accuracy may be too high" if bad else ""),
    )


def confirmation(noticed: int, confirmed: int, *, eight_bit: bool) -> Check:
    """Successes of the search that the model itself did not confirm on the exact tensor; that rounding to
    8 bits undoes some is no fault of the search."""
    lost = noticed - confirmed
    detail = f"{confirmed} of {noticed} successes were confirmed by the model itself on the exact tensor"
    return Check(
        name="confirmation",
        verdict="doubt" if lost > 0.02 * max(noticed, 50) and not eight_bit else "ok",
        detail=f"{detail}, rounded to 8 bits" if eight_bit else detail,
    )


def randomness(notes: list[str]) -> Check:
    """A model whose answers change lets an attack succeed or fail by luck."""
    for note in notes:
        if "randomised" in note:
            detail = f"{note}; average the gradient over several passes to judge it"
            return Check(name="determinism", verdict="doubt", detail=detail)
    return Check(name="determinism", verdict="ok", detail="two passes over the same images agree")
