"""The cascade: cheap and strong first, then dear, and dear only where an image is about to fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from advkit.attacks.ensemble import Ensemble, Stage, ensemble
from advkit.config import Fraction, StrictModel
from advkit.threat import Threat


@ensemble(
    "cascade",
    summary="from a short attack on the likeliest class to all attacks on the images nearest to falling",
    source="after Croce and Hein 2020; order and budget by margin as in Liu et al. 2022",
)
class Cascade(Ensemble):
    """The default. Later stages look at the images in the order of the margins that earlier ones reached."""

    class Config(StrictModel):
        """Parameters."""

        tolerance: Fraction = Field(0.001, ge=0, lt=1)
        """Change of the robust accuracy that is not worth looking for; 0: all stages on all images."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """Five stages; see `docs/architecture.md`."""
        wrong = classes - 1

        def apgd(name: str, targets: int, steps: int) -> Stage:
            chosen = {"loss": "logit-difference", "targets": min(targets, wrong), "steps": steps}
            return Stage(name, "apgd", chosen)

        return (
            apgd("likeliest", 1, 25),
            apgd("three-targets", 3, 50),
            replace(apgd("all-targets", 9, 100), precision="float32", tolerance=self.config.tolerance),
        )
