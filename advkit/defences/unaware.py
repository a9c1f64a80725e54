"""The attacks that a defence is judged by, and what those achieve that do not know of it."""

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
    """Those that are named, ensembles in their parts, with every fault told before the work begins.

    Raises:
        ConfigError: unknown attacks or parameters, or a norm or number of classes that one cannot work in.
    """
    return plan(config.attack, threat, classifier.card.classes or data.classes, config.parameters)


def unaware(
    attacks: Sequence[Stage],
    classifier: Model,
    data: Data,
    threat: Threat,
    config: Judged,
    progress: Progress,
) -> list[Fooled]:
    """What each attack, made on the bare classifier, turns of all the images."""
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
    """(N,) bool: of the images that are ``right``, those that no attack has turned."""
    standing = right.clone()
    for each in found:
        standing[each.rows] = False
    return standing
