"""Auto-PGD on the cross-entropy."""

from __future__ import annotations

from advkit.attacks.apgd import APGD, APGDConfig
from advkit.attacks.attack import attack


@attack("apgd-ce", summary="Auto-PGD on the cross-entropy", source="Croce and Hein 2020")
class APGDCE(APGD):
    """Halves the step and restores the best point where the cross-entropy has stopped rising."""

    class Config(APGDConfig):
        """Parameters."""

    loss_name = "ce"
