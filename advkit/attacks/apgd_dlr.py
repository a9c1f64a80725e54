"""Auto-PGD on the difference of logits ratio."""

from __future__ import annotations

from advkit.attacks.apgd import APGD, APGDConfig
from advkit.attacks.attack import attack


@attack("apgd-dlr", summary="Auto-PGD on the difference of logits ratio", source="Croce and Hein 2020")
class APGDDLR(APGD):
    """As `advkit.attacks.apgd_ce`, on a loss that is invariant to the scale of the logits."""

    class Config(APGDConfig):
        """Parameters."""

    loss_name = "dlr"
