"""The default attacks on a black box, by what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from advkit.attacks.ensemble import Ensemble, Stage, ensemble, stage
from advkit.core.config import StrictModel
from advkit.core.threat import Threat


@ensemble(
    "black-box",
    summary="square for scores, hop-skip-jump for decisions: what cascade is on a black box",
    source="Andriushchenko et al. 2020; Chen et al. 2020",
)
class BlackBoxAttacks(Ensemble):
    """One attack, which has all queries: what a second one would find costs queries of the first."""

    class Config(StrictModel):
        access: Literal["scores", "decisions"] = "scores"
        """What the model answers."""
        queries: int = Field(5000, ge=2)
        """Queries of the attack; that of the original image and the one that confirms come on top."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """One stage."""
        name = "square" if self.config.access == "scores" else "hop-skip-jump"
        return (stage(name, name, queries=self.config.queries),)
