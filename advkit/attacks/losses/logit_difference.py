"""The margin between two classes."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked, strongest_other


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
