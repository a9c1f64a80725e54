"""The difference of logits ratio."""

from torch import Tensor

from advkit.attacks.loss import attack_loss, picked, strongest_other
from advkit.core.errors import ConfigError


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
