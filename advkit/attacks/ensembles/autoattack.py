"""AutoAttack, as its authors define it, for comparison with published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from advkit.attacks.ensemble import Ensemble, Stage, ensemble, stage
from advkit.core.config import StrictModel
from advkit.core.threat import Threat


@ensemble(
    "autoattack",
    summary="the standard evaluation: APGD-CE, targeted APGD, targeted FAB, Square",
    source="Croce and Hein 2020; l1: Croce and Hein 2021",
)
class AutoAttack(Ensemble):
    """All parameters are those of the reference implementation.

    A model with too few classes for the difference of logits ratio is attacked with the plain difference of
    logits.
    """

    class Config(StrictModel):
        version: Literal["standard", "plus", "rand"] = "standard"
        """standard: 4 attacks; plus: 6, with restarts; rand: 2, averaging gradients, for random models."""
        samples: int = Field(20, ge=1)
        """Gradients averaged in a step of rand."""
        queries: int = Field(5000, ge=1)
        """Queries of Square Attack."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """The attacks of the version, in the reference's order."""
        version, l1 = self.config.version, threat.norm == "l1"
        wrong = min(9, classes - 1)
        square = stage("square", "square", queries=self.config.queries)
        fab_t = stage("fab-t", "fab-t", targets=wrong)
        if version == "rand":
            samples = {"samples": self.config.samples}
            return stage("apgd-ce", "apgd-ce", **samples), _dlr(classes, samples)
        if version == "plus":
            five = {"restarts": 5}
            ce = stage("apgd-ce", "apgd-ce", **five)
            fab = stage("fab", "fab", **five)
            return ce, _dlr(classes, five), fab, square, _targeted(classes, wrong), fab_t
        ce = stage("apgd-ce", "apgd-ce", **({"restarts": 5} if l1 else {}))
        return ce, _targeted(classes, min(wrong, 5) if l1 else wrong), fab_t, square


def _dlr(classes: int, parameters: dict[str, Any]) -> Stage:
    if classes >= 3:
        return stage("apgd-dlr", "apgd-dlr", **parameters)
    return stage("apgd-margin", "apgd", loss="margin", **parameters)


def _targeted(classes: int, targets: int) -> Stage:
    if classes >= 4:
        return stage("apgd-t", "apgd-t", targets=targets)
    return stage("apgd-t", "apgd", loss="logit-difference", targets=targets)
