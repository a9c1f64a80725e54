"""The margin of the decision."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked, strongest_other


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
