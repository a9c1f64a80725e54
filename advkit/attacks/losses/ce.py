"""Cross-entropy."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from advkit.attacks.loss import attack_loss


@attack_loss("ce", summary="cross-entropy of the true class", source="Goodfellow et al. 2015")
def ce(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """-log p(label); targeted: log p(target). Its gradient vanishes where the model is confident."""
    if target is None:
        return cross_entropy(logits, label, reduction="none")
    return -cross_entropy(logits, target, reduction="none")
