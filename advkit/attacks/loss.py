"""Attack losses: one number per row, which the attack maximises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advkit.core.errors import ConfigError
from advkit.core.registry import Registry

AttackLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits (R, K), labels (R,), target classes (R,) or None: untargeted) -> (R,)"""

ATTACK_LOSSES: Registry[AttackLoss] = Registry("attack loss", "advkit.attacks.losses")


def attack_loss(name: str, *, summary: str, source: str) -> Callable[[AttackLoss], AttackLoss]:
    """Decorator that registers an `AttackLoss` under ``name``."""
    return ATTACK_LOSSES.register(name, summary=summary, source=source)


def picked(logits: Tensor, label: Tensor) -> Tensor:
    """(R, ...) the logit (R, ..., K) of each row's class (R, ...)."""
    return logits.gather(-1, label[..., None])[..., 0]


def strongest_other(logits: Tensor, label: Tensor) -> Tensor:
    """(R, ...) the largest logit (R, ..., K) except that of each row's class (R, ...).

    Raises:
        ConfigError: there is no other class.
    """
    if logits.shape[-1] < 2:
        raise ConfigError(
            "the model has one class only, so there is no other class to reach; use a model with at least two"
        )
    return logits.scatter(-1, label[..., None], -torch.inf).amax(-1)
