"""The logarithm of the odds against a class."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked


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
