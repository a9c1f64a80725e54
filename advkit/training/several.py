"""Training against several threat models at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.training.objective import Batch, Objective, Passes
from advkit.training.settings import Several


def named(text: str) -> Threat:
    """The threat model that ``NORM:EPS`` names.

    Raises:
        ConfigError: it names none.
    """
    norm, colon, eps = text.partition(":")
    if not colon:
        raise ConfigError(f"--also {text}: write a threat model as NORM:EPS, for example l2:2 or linf:8/255")
    return Threat(norm, eps)


def refuse_misfits(objective: Objective, threats: Sequence[Threat], union: Several) -> None:
    """Raises a `ConfigError` where an objective cannot be trained against these threat models."""
    if objective.needs_threat and not threats:
        raise ConfigError("this objective needs a threat model; give --norm and --eps (threat=...)")
    if not objective.needs_threat:
        if len(threats) > 1:
            raise ConfigError(
                "this objective has no attacker, so there are no threat models to name; leave --also out"
            )
        return
    if len({one.norm for one in threats}) < len(threats):
        raise ConfigError("two of the threat models are of the same norm; give the larger one alone")
    if len(threats) > 1 and union == "max" and not objective.chooses:
        raise ConfigError(
            "this objective makes one example of an image, so there is no worst of several to choose; "
            "give --union average or random"
        )
    for one in threats:
        objective.refuse(one)


def passes(objective: Objective, threats: int, union: Several) -> Passes:
    """What an image costs in one update against so many threat models."""
    one, inner = objective.passes, objective.inner
    if threats < 2 or union == "random":
        return one
    if union == "average":
        return Passes(one.forwards * threats, one.backwards * threats)
    more = threats - 1
    return Passes(one.forwards + more * inner.forwards + threats, one.backwards + more * inner.backwards)


def gradients(
    objective: Objective,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch: Batch,
    threats: Sequence[Threat],
    union: Several,
) -> tuple[Tensor, Tensor]:
    """As `Objective.gradients` against all of them: the worst example of each image, the average of all
    losses (both of Tramer and Boneh, NeurIPS 2019, section 4), or one threat model at random for each batch.

    Args:
        model: images in [0, 1] to logits, in train mode and without gradients.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) classes.
        batch: everything else, its threat models left out.
        threats: none, one, or several of different norms.
        union: how several of them count.
    """
    if not threats:
        return objective.gradients(model, x, y, batch)
    if union == "max":
        return objective.gradients(model, x, y, replace(batch, threat=threats[0], others=tuple(threats[1:])))
    if union == "random" or len(threats) == 1:
        drawn = rng.derive(batch.seed, "threat", batch.step // objective.replays) % len(threats)
        return objective.gradients(model, x, y, replace(batch, threat=threats[drawn]))
    each = [objective.gradients(model, x, y, replace(batch, threat=one)) for one in threats]
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= len(threats)
    losses, logits = zip(*each, strict=True)
    worst = (torch.stack([said.argmax(1) == y for said in logits]).int()).argmin(0)
    return torch.stack(losses).mean(), torch.stack(logits)[worst, torch.arange(len(y), device=y.device)]
