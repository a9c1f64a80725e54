"""The attacks by which a defence is judged, and their success as non-adaptive attacks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from advkit.attacks.ensemble import Stage
from advkit.core.progress import Progress
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.defences.examples import Fooled, fooled
from advkit.defences.settings import Judged
from advkit.evaluation.evaluate import plan
from advkit.models.model import Model


def attacks_of(config: Judged, classifier: Model, data: Data, threat: Threat) -> tuple[Stage, ...]:
    """The requested attacks, ensembles as their stages; every mistake is reported before the work begins.

    Raises:
        ConfigError: unknown attacks or parameters, or an attack that does not support the norm or the number
            of classes.
    """
    return plan(config.attack, threat, classifier.card.classes or data.classes, config.parameters)


def non_adaptive(
    attacks: Sequence[Stage],
    classifier: Model,
    data: Data,
    threat: Threat,
    config: Judged,
    progress: Progress,
) -> list[Fooled]:
    """The adversarial examples that each attack finds on the bare classifier."""
    return [
        fooled(
            classifier,
            data,
            threat,
            stage.attack,
            stage.parameters,
            seed=config.seed,
            precision=config.precision,
            progress=progress,
        )
        for stage in attacks
    ]


def left(right: Tensor, found: Sequence[Fooled]) -> Tensor:
    """(N,) bool: the images that are ``right`` and that no attack has broken."""
    robust = right.clone()
    for each in found:
        robust[each.rows] = False
    return robust
