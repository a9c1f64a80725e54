"""What attacks climb: a loss per row, larger where the model is nearer to being wrong."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from advkit.registry import Registry

AttackLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (R, K), labels (R,)) -> (R,)"""

ATTACK_LOSSES: Registry[AttackLoss] = Registry("attack loss", "advkit.attacks.losses")


def attack_loss(name: str, *, summary: str, source: str) -> Callable[[AttackLoss], AttackLoss]:
    """Decorator that registers an `AttackLoss` under ``name``."""
    return ATTACK_LOSSES.register(name, summary=summary, source=source)
