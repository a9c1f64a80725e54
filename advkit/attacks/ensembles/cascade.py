"""The cascade: a cheap, strong attack first, then expensive attacks on the images of the largest margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from advkit.attacks.ensemble import Ensemble, Stage, ensemble
from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.threat import Threat


@ensemble(
    "cascade",
    summary="a short targeted attack, then several kinds on the images with the largest margin",
    source="attacks of Croce and Hein 2020; budget by margin after Liu et al. 2022",
)
class Cascade(Ensemble):
    """The default.

    Two short stages attack every image. The others attack the images in rounds, in the order of their
    largest margin so far, and go on while rounds succeed: where gradients are informative they stop soon,
    and where they are masked, the kinds that have succeeded run again with more steps, restarts and queries.
    """

    class Config(StrictModel):
        """Parameters."""

        tolerance: Fraction = Field(0.001, ge=0, lt=1)
        """Change of the robust accuracy that is negligible; 0: all stages on all images."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """Eleven stages, the last four only where their kind has succeeded; two other stages in l0."""
        if threat.norm == "l0":
            return (Stage("sigma-zero", "sigma-zero", {"steps": 100}), Stage("fmn", "fmn"))
        wrong = min(classes - 1, 9)
        ratio = "dlr" if classes >= 4 else "logit-difference"
        diversified = _stage("apgd-ce", "apgd", loss="ce", start="diversified", restarts=2, steps=50)
        fab = _stage("fab-t", "fab-t", targets=min(wrong, 3), steps=50)
        short, long = (_stage("square", "square", queries=queries) for queries in (2500, 5000))
        return (
            _stage("apgd-t", "apgd", loss="logit-difference", targets=1, steps=25),
            _stage("apgd-t", "apgd", loss="logit-difference", targets=min(wrong, 3), steps=20),
            self._nearest(24, _stage("apgd-t", "apgd", loss=ratio, targets=wrong, steps=50)),
            self._nearest(24, diversified),
            self._nearest(24, fab),
            self._nearest(16, short, None),
            self._nearest(8, _stage("apgd-t", "apgd", loss=ratio, targets=wrong, restarts=2, steps=100)),
            self._nearest(
                8, _stage("apgd-ce", "apgd", loss="ce", restarts=5, steps=100), after=diversified.name
            ),
            self._nearest(8, _stage("fab-t", "fab-t", targets=wrong, restarts=2), after=fab.name),
            self._nearest(8, long, None, after=short.name),
            self._nearest(8, _stage("square", "square", queries=10000), None, after=long.name),
        )

    def _nearest(
        self,
        fewest: int,
        stage: Stage,
        precision: Precision | None = "float32",
        *,
        after: str | None = None,
    ) -> Stage:
        return replace(stage, tolerance=self.config.tolerance, round=fewest, precision=precision, after=after)


def _stage(label: str, attack: str, **parameters: Any) -> Stage:
    """A stage named by ``label``, the form of the attack, and its parameters."""
    parts = ["diversified start"] if "start" in parameters else []
    for key in ("targets", "restarts", "steps", "queries"):
        if key in parameters:
            parts.append(f"{parameters[key]} {key.removesuffix('s') if parameters[key] == 1 else key}")
    return Stage(f"{label} ({', '.join(parts)})", attack, parameters)
