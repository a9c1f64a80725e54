"""Auto-PGD toward one class after the other."""

from __future__ import annotations

from pydantic import Field

from advkit.attacks.apgd import APGD, APGDConfig
from advkit.attacks.attack import attack


@attack(
    "apgd-t",
    summary="Auto-PGD on the targeted difference of logits ratio, one class after the other",
    source="Croce and Hein 2020",
)
class APGDT(APGD):
    """A row for each wrong class, the likeliest first; they leave together when one succeeds."""

    class Config(APGDConfig):
        """Parameters."""

        targets: int = Field(9, ge=1)
        """Wrong classes to aim at, the likeliest first."""

    loss_name = "dlr"
