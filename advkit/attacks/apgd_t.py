"""Targeted Auto-PGD, one target class after another."""

from __future__ import annotations

from pydantic import Field

from advkit.attacks.apgd import APGD, APGDConfig
from advkit.attacks.attack import attack


@attack(
    "apgd-t",
    summary="Auto-PGD on the targeted difference of logits ratio, one class after another",
    source="Croce and Hein 2020",
)
class APGDT(APGD):
    """A row for each target class, largest logit first; all end when one succeeds."""

    class Config(APGDConfig):
        """Parameters."""

        targets: int = Field(9, ge=1)
        """Target classes, largest logit first."""

    loss_name = "dlr"
