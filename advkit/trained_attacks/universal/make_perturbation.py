"""A universal perturbation from beginning to end: trained and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from advkit.core.config import validate
from advkit.core.errors import ConfigError
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder, environment
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.models.card import ThreatFacts
from advkit.models.model import Model
from advkit.trained_attacks.universal.judge import judge_perturbation, random_subset
from advkit.trained_attacks.universal.perturbation import Perturbation
from advkit.trained_attacks.universal.result import PerturbationResult
from advkit.trained_attacks.universal.settings import PerturbationSettings
from advkit.trained_attacks.universal.subjects import (
    Modules,
    all_in_evaluation_mode,
    both_splits,
    class_number,
    classifiers,
)
from advkit.trained_attacks.universal.train import train

NORMS = ("linf", "l2")
"""Norms in which one perturbation for all images is customary."""


def train_universal(
    model: Modules,
    data: Data | str | tuple[Any, Any],
    threat: Threat | None = None,
    *,
    test: Data | tuple[Any, Any] | None = None,
    transfer: Modules = (),
    n: int = 1000,
    progress: Progress = SILENT,
    **settings: Any,
) -> PerturbationResult:
    """Makes one perturbation that misleads a classifier on as many images as possible, and judges it.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits; or several such models, to be misled alike.
        data: images to train on: `Data`, a data set's name, or (images, labels).
        threat: norm (linf or l2) and largest size; None: the customary one.
        test: images to judge by; with a data set's name, its test split.
        transfer: further classifiers to judge by.
        n: test images at most, drawn at random.
        progress: told of updates.
        **settings: further keys of `advkit.trained_attacks.universal.settings.PerturbationSettings`.

    Returns:
        The figures, and ``.perturbation`` (C, H, W).

    Raises:
        ConfigError: an unknown class or setting, another norm, or no threat model to assume.
        DataError: no images to train on or to judge by.
        ModelError: a model does not behave as a classifier.
    """
    learn, judged = both_splits(data, test)
    config = validate(PerturbationSettings, settings, "train_universal")
    models, others = classifiers(model, learn), classifiers(transfer, learn)
    threat = threat or threats.choose(config.norm, config.eps, models[0], learn, progress)
    names = [each.card.architecture for each in (*models, *others)]
    few = random_subset(judged, n, config.seed)
    return make_perturbation(models, others, names, learn, few, threat, config, progress=progress)


def make_perturbation(
    models: Sequence[Model],
    others: Sequence[Model],
    names: Sequence[str],
    learn: Data,
    test: Data,
    threat: Threat,
    config: PerturbationSettings,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> PerturbationResult:
    """`train_universal` with everything at hand.

    Args:
        models: classifiers to mislead.
        others: classifiers to judge by only.
        names: of both, in order.
        learn: images to train on.
        test: images to judge by, all of them.
        threat: norm and largest size.
        config: how; its norm and eps are passed over.
        run: folder to resume from.
        progress: told of updates.
    """
    begun = time.perf_counter()
    refuse_norm(threat)
    target = None if config.target is None else class_number(config.target, learn)
    kind = Perturbation(threat, learn.shape, config.rate)
    everyone = [*models, *others]
    with all_in_evaluation_mode(everyone):
        change = train(
            kind,
            models,
            learn,
            config,
            target=target,
            clip=config.clip,
            run=run,
            progress=progress,
            name="training the perturbation",
        )
        judged = tuple(
            judge_perturbation(
                each,
                name,
                test,
                kind,
                change,
                target=target,
                seed=config.seed,
                trained_on=number < len(models),
            )
            for number, (each, name) in enumerate(zip(everyone, names, strict=True))
        )
    result = PerturbationResult(
        train=learn.facts,
        test=test.facts,
        settings=config.model_dump(mode="json", include=set(PerturbationSettings.model_fields)),
        seconds=time.perf_counter() - begun,
        environment=environment(),
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        size=float(threat.distance(change, change * 0)),
        target=target,
        target_name="" if target is None else learn.class_names[target],
        classifiers=judged,
    )
    result._perturbation = change[0].cpu()
    return result


def refuse_norm(threat: Threat) -> None:
    """Before the work begins.

    Raises:
        ConfigError: a norm in which there are no universal perturbations here.
    """
    if threat.norm not in NORMS:
        raise ConfigError(
            f"universal perturbations are bounded in {' or '.join(NORMS)}, not in {threat.norm}; "
            "give --norm and --eps"
        )
