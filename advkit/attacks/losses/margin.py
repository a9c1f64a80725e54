"""The margin of the decision."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked, strongest_other


@attack_loss(
    "margin",
    summary="largest other logit minus the true class's; positive means broken",
    source="Carlini and Wagner 2017, loss f6",
)
def margin(logits: Tensor, label: Tensor, target: Tensor | None = None) -> Tensor:
    """max over i != label of z_i, minus z_label; toward a class: z_aim minus the largest other logit.

    Unlike cross-entropy it does not flatten out.
    """
    if target is None:
        return strongest_other(logits, label) - picked(logits, label)
    return picked(logits, target) - strongest_other(logits, target)
