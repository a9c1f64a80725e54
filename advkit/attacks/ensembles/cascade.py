"""The cascade: cheap attacks on every image, then expensive ones on the images nearest to the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from advkit.attacks.ensemble import Ensemble, Stage, ensemble, stage
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat

FEW, MANY = 13, 36
"""Images in a round of Square, and of an attack with gradients, which is cheaper: the fewest that show, when
none of them falls, that fewer than one in four of those left would, and than one in ten."""


@ensemble(
    "cascade",
    summary="a short targeted attack on every image, then all kinds on the images nearest to the boundary",
    source="attacks of Croce and Hein 2020; budget by margin after Liu et al. 2022",
)
class Cascade(Ensemble):
    """The default.

    Two short stages attack every image. The others take the images in the order of the largest margin reached
    so far, in rounds, and stop when these show that little is left to find (`advkit.evaluation.cascade`).
    Those that repeat a kind of attack, with more targets, restarts or queries, run where it has found some.
    The shorter run toward all targets is left out where the longer one begins with all images that are left.
    ``ascents`` adds a long search for what only many local maxima together show, on small networks.
    """

    class Config(StrictModel):
        tolerance: Fraction = Field(0.001, ge=0, lt=1)
        """Change of the robust accuracy that is not worth looking for; 0: all stages on all images."""
        ascents: int = Field(0, ge=0)
        """Ascents of the memetic attack, of 30 gradients each, on all images that the other stages leave; 0:
        none."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """Ten stages in linf, nine in l2 and l1, some of them only where their kind has found something, and
        that of ``ascents``; in l0 two of its own."""
        if threat.norm == "l0":
            return stage("sigma-zero", "sigma-zero", steps=100), stage("fmn", "fmn")
        wrong = min(classes - 1, 9)
        linf = threat.norm == "linf"
        fmn = stage("fmn-t", "fmn-t", targets=min(wrong, 3), steps=50)
        apgd_t = stage("all-targets", "apgd", loss=_ratio(classes), targets=wrong, steps=50)
        apgd_ce = stage("diversified", "apgd", loss="ce", start="diversified", restarts=2, steps=50)
        longest, *_, square = long_attacks(threat, classes)
        ascents = self.config.ascents
        memetic = [stage("memetic", "memetic", ascents=ascents)] if ascents else []
        return (
            stage("likeliest", "apgd", loss="logit-difference", targets=1, steps=25),
            stage("three-targets", "apgd", loss="logit-difference", targets=min(wrong, 3), steps=20),
            self._in_rounds(fmn),
            self._in_rounds(apgd_t, beyond=MANY if linf else 0),
            self._in_rounds(apgd_ce),
            *([self._in_rounds(_fmn_again(wrong), after=fmn)] if linf else ()),
            self._in_rounds(stage("ce-again", "apgd", loss="ce", restarts=5, steps=100), after=apgd_ce),
            self._in_rounds(longest),
            self._in_rounds(square),
            self._in_rounds(stage("square-longer", "square", queries=10000), after=square),
            *memetic,
        )

    def _in_rounds(self, one: Stage, *, after: Stage | None = None, beyond: int = 0) -> Stage:
        square = one.attack == "square"
        return replace(
            one,
            tolerance=self.config.tolerance,
            round=FEW if square else MANY,
            rare=0.25 if square else 0.1,
            precision=None if square else "float32",
            after=after.name if after and self.config.tolerance else None,
            beyond=beyond if self.config.tolerance else 0,
        )


def long_attacks(threat: Threat, classes: int) -> tuple[Stage, ...]:
    """The strongest stages, that of most successes first: in l2 and l1 FMN, then Auto-PGD, 100 steps toward
    up to nine classes each, and Square with 5,000 queries."""
    wrong = min(classes - 1, 9)
    fmn = () if threat.norm == "linf" else (_fmn_again(wrong),)
    apgd = stage("restarts", "apgd", loss=_ratio(classes), targets=wrong, steps=100)
    gradients = (replace(each, precision="float32") for each in (*fmn, apgd))
    return *gradients, stage("square", "square", queries=5000)


def _fmn_again(targets: int) -> Stage:
    return stage("fmn-again", "fmn-t", targets=targets, steps=100)


def _ratio(classes: int) -> str:
    return "dlr" if classes >= 4 else "logit-difference"
