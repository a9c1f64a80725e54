"""The fast adaptive boundary attack toward several classes."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Rows, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.fab import FAB, FABConfig
from advkit.attacks.parts.boundary import toward_target


@attack(
    "fab-t",
    summary="targeted FAB, toward the wrong classes of the largest logits",
    source="Croce and Hein, ICML 2020, arXiv:2003.01690",
)
class FABT(FAB):
    """A step needs the gradient of one logit difference, where `FAB` needs those of all."""

    class Config(FABConfig):
        """Parameters."""

        targets: int = Field(9, ge=0)
        """Target classes, largest logit first; 0: in each step, the strongest wrong class."""

    def boundary(self, x: Tensor, rows: Rows, oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
        """That of the search target."""
        return toward_target(oracle, x, rows)
