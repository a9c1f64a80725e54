"""Cross-entropy."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from advkit.attacks.loss import attack_loss


@attack_loss(
    "ce", summary="cross-entropy of the true class", source="Goodfellow et al. 2015; Madry et al. 2018"
)
def ce(logits: Tensor, label: Tensor) -> Tensor:
    """-log p(label), in [0, inf)."""
    return cross_entropy(logits, label, reduction="none")
