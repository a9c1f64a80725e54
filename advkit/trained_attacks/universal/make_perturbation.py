"""Trains and evaluates a universal perturbation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from advkit.core.bars import shown
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
"""Norms of universal perturbations."""


@torch.inference_mode(False)
@torch.enable_grad()
def train_universal(
    model: Modules,
    data: Data | str | tuple[Any, Any],
    threat: Threat | None = None,
    *,
    test: Data | tuple[Any, Any] | None = None,
    transfer: Modules = (),
    n: int = 1000,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> PerturbationResult:
    """Trains one perturbation against a classifier for as many images as possible, and evaluates it.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits; or several such models, attacked together.
        data: training images: `Data`, a data set's name, or (images, labels).
        threat: norm (linf or l2) and budget; None: the default threat model.
        test: test images; with a data set's name, its test split.
        transfer: further classifiers for evaluation only.
        n: test images at most, sampled at random.
        progress: True: bars or lines; False: none; None: bars in a terminal or a notebook; or your own.
        **settings: further keys of `advkit.trained_attacks.universal.settings.PerturbationSettings`.

    Returns:
        The figures, and ``.perturbation`` (C, H, W).

    Raises:
        ConfigError: an unknown class or setting, another norm, or no default threat model.
        DataError: no images for training or evaluation.
        ModelError: a model that is not a classifier.
    """
    progress = shown(progress)
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
    """`train_universal` with loaded models and data.

    Args:
        models: classifiers to attack.
        others: classifiers for evaluation only.
        names: of both, in order.
        learn: training images.
        test: test images.
        threat: norm and budget.
        config: of the training; its norm and eps are ignored.
        run: folder to resume from.
        progress: reports updates.
    """
    start = time.perf_counter()
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
        seconds=time.perf_counter() - start,
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
    """Refuses other norms before any work.

    Raises:
        ConfigError: a norm that universal perturbations do not support.
    """
    if threat.norm not in NORMS:
        raise ConfigError(
            f"universal perturbations support {' and '.join(NORMS)}, not {threat.norm}; give --norm and --eps"
        )
