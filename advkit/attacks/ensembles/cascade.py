"""The cascade: cheap attacks on every image, then expensive ones on the images nearest to the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from advkit.attacks.ensemble import Ensemble, Stage, ensemble, stage
from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.threat import Threat


@ensemble(
    "cascade",
    summary="a short targeted attack on every image, then all kinds on the images nearest to the boundary",
    source="attacks of Croce and Hein 2020; budget by margin after Liu et al. 2022",
)
class Cascade(Ensemble):
    """The default.

    Two short stages attack every image. The others take the images in the order of the largest margin reached
    so far, in rounds, and stop when a round finds too little. The last three repeat a kind of attack that has
    found something, with more steps, restarts or queries.
    """

    class Config(StrictModel):
        tolerance: Fraction = Field(0.001, ge=0, lt=1)
        """Change of the robust accuracy that is not worth looking for; 0: all stages on all images."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """Ten stages, the last three only where their kind has found something; in l0 two, made for it."""
        if threat.norm == "l0":
            return stage("sigma-zero", "sigma-zero", steps=100), stage("fmn", "fmn")
        wrong = min(classes - 1, 9)
        ratio = "dlr" if classes >= 4 else "logit-difference"
        apgd_ce = stage("diversified", "apgd", loss="ce", start="diversified", restarts=2, steps=50)
        fab = stage("fab-t", "fab-t", targets=min(wrong, 3), steps=50)
        square = stage("square", "square", queries=5000)
        return (
            stage("likeliest", "apgd", loss="logit-difference", targets=1, steps=25),
            stage("three-targets", "apgd", loss="logit-difference", targets=min(wrong, 3), steps=20),
            self._nearest(24, stage("all-targets", "apgd", loss=ratio, targets=wrong, steps=50)),
            self._nearest(24, apgd_ce),
            self._nearest(24, fab),
            self._nearest(16, square, None),
            self._nearest(8, stage("restarts", "apgd", loss=ratio, targets=wrong, restarts=2, steps=100)),
            self._nearest(8, stage("ce-again", "apgd", loss="ce", restarts=5, steps=100), after=apgd_ce),
            self._nearest(8, stage("fab-again", "fab-t", targets=wrong, restarts=2), after=fab),
            self._nearest(8, stage("square-longer", "square", queries=10000), None, after=square),
        )

    def _nearest(
        self,
        fewest: int,
        one: Stage,
        precision: Precision | None = "float32",
        *,
        after: Stage | None = None,
    ) -> Stage:
        return replace(
            one,
            tolerance=self.config.tolerance,
            round=fewest,
            precision=precision,
            after=after.name if after and self.config.tolerance else None,
        )
