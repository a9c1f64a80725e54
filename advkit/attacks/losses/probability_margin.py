"""The margin of probabilities."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked, strongest_other


@attack_loss(
    "probability-margin",
    summary="largest other probability minus that of the true class; positive means misclassified",
    source="Xie et al. 2024, arXiv:2411.15210",
)
def probability_margin(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """max over i != label of p_i, minus p_label; targeted: p_target - p_label.

    Its gradient weighs all classes, as that of cross-entropy does, and vanishes where a model is certain.
    """
    p = logits.softmax(-1)
    toward = strongest_other(p, label) if target is None else picked(p, target)
    return toward - picked(p, label)
