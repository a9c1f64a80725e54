"""The fast adaptive boundary attack toward several classes."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Rows, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.fab import FAB, FABConfig
from advkit.attacks.parts.boundary import aimed


@attack(
    "fab-t",
    summary="FAB toward the likeliest wrong classes, one after the other",
    source="Croce and Hein, ICML 2020, arXiv:2003.01690",
)
class FABT(FAB):
    """A step needs the derivatives of one logit difference, where `FAB` needs those of all."""

    class Config(FABConfig):
        """Parameters."""

        targets: int = Field(9, ge=0)
        """Wrong classes to aim at, the likeliest first; 0: in each step, at the strongest."""

    def boundary(self, x: Tensor, rows: Rows, oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
        """That toward the class aimed at."""
        return aimed(oracle, x, rows)
