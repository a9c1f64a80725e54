"""The momentum iterative method."""

from __future__ import annotations

from advkit.attacks.attack import attack
from advkit.attacks.parts.momentum import Momentum, MomentumConfig


@attack(
    "mi-fgsm",
    summary="sign steps along a running sum of gradients",
    source="Dong et al. 2018",
    aliases=("momentum-iterative",),
)
class MIFGSM(Momentum):
    """The sum keeps directions on which several gradients agree, and other models may agree too."""

    class Config(MomentumConfig):
        """Parameters."""
