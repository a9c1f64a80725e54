"""The logarithm of the odds against a class."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked


@attack_loss(
    "log-odds",
    summary="log((1 - p) / p) of the true class: rises along the cross-entropy, but is never flat",
    source="Rony et al. 2019 and Goodfellow et al. 2015, before rounding",
)
def log_odds(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """log((1 - p(label)) / p(label)); toward a class: log(p(target) / (1 - p(target))).

    Cross-entropy is a rising function of it, so their gradients point the same way. But where the model is
    sure to the last bit, the cross-entropy's is lost in rounding and this one's is not.
    """
    about = label if target is None else target
    against = logits.scatter(1, about[:, None], -float("inf")).logsumexp(1) - picked(logits, about)
    return against if target is None else -against
