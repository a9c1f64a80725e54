"""Attack losses: one number per row, which the attack maximises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from advkit.core.errors import ConfigError
from advkit.core.registry import Registry

AttackLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits (R, K), labels (R,), target classes (R,) or None: untargeted) -> (R,)"""

ATTACK_LOSSES: Registry[AttackLoss] = Registry("attack loss")


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


@attack_loss("ce", summary="cross-entropy of the true class", source="Goodfellow et al. 2015")
def ce(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """-log p(label); targeted: log p(target). Its gradient vanishes where the model is confident."""
    if target is None:
        return cross_entropy(logits, label, reduction="none")
    return -cross_entropy(logits, target, reduction="none")


@attack_loss(
    "log-odds",
    summary="log((1 - p) / p) of the true class: the direction of the cross-entropy, never flat",
    source="Rony et al. 2019 and Goodfellow et al. 2015, before rounding",
)
def log_odds(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """log((1 - p(label)) / p(label)); targeted: log(p(target) / (1 - p(target))).

    Cross-entropy is an increasing function of it, so their gradients have the same direction. But where the
    predicted probability rounds to 1, the cross-entropy's gradient is lost and this one's is not.
    """
    chosen = label if target is None else target
    against = logits.scatter(1, chosen[:, None], -float("inf")).logsumexp(1) - picked(logits, chosen)
    return against if target is None else -against


@attack_loss(
    "margin",
    summary="largest other logit minus that of the true class; positive means misclassified",
    source="Carlini and Wagner 2017, loss f6",
)
def margin(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """max over i != label of z_i, minus z_label; targeted: z_target minus the largest other logit.

    Unlike that of cross-entropy, its gradient does not vanish.
    """
    if target is None:
        return strongest_other(logits, label) - picked(logits, label)
    return picked(logits, target) - strongest_other(logits, target)


@attack_loss(
    "logit-difference",
    summary="logit of the target class minus that of the true class",
    source="Gowal et al. 2019, MultiTargeted",
)
def logit_difference(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """z_target - z_label; without a target, the margin. The other classes do not enter, so an attack on
    one class after another has a smooth objective each time."""
    toward = strongest_other(logits, label) if target is None else picked(logits, target)
    return toward - picked(logits, label)


@attack_loss(
    "dlr",
    summary="margin divided by the spread of the largest logits",
    source="Croce and Hein 2020, equations 6 and 7",
)
def dlr(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """(max over i != label of z_i - z_label) / (z_(1) - z_(3)); targeted:
    (z_target - z_label) / (z_(1) - (z_(3) + z_(4)) / 2). Invariant to scale and shift of the logits.

    Raises:
        ConfigError: fewer than 3 classes (4 with a target), where it is undefined.
    """
    needed = 3 if target is None else 4
    if logits.shape[1] < needed:
        raise ConfigError(
            f"the dlr loss needs {needed} classes and the model has {logits.shape[1]}; use the margin loss"
        )
    top = logits.topk(needed, dim=1).values
    if target is None:
        return (strongest_other(logits, label) - picked(logits, label)) / (top[:, 0] - top[:, 2] + 1e-12)
    return (picked(logits, target) - picked(logits, label)) / (
        top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12
    )
