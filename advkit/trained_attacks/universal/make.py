"""Trains and evaluates patches and universal perturbations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import rng
from advkit.core.bars import shown
from advkit.core.config import validate
from advkit.core.errors import ConfigError, DataError, did_you_mean
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder, environment
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.load import as_data, load_data
from advkit.models.card import ThreatFacts
from advkit.models.inspect import inspect_classifier
from advkit.models.load import wrap
from advkit.models.model import Model, evaluation_mode
from advkit.trained_attacks.universal.change import Patch, Perturbation
from advkit.trained_attacks.universal.judge import (
    judge_patch,
    judge_perturbation,
    judgements,
    random_subset,
    rounded_to_8_bits,
)
from advkit.trained_attacks.universal.result import PatchResult, PerturbationResult
from advkit.trained_attacks.universal.settings import PatchSettings, PerturbationSettings
from advkit.trained_attacks.universal.train import train

Modules = nn.Module | Sequence[nn.Module]
"""One classifier, or several."""


def both_splits(
    data: Data | str | tuple[object, object], test: Data | tuple[object, object] | None
) -> list[Data]:
    """[training images, test images].

    Raises:
        DataError: test images are missing.
    """
    if isinstance(data, str):
        return [load_data(data, "train"), load_data(data, "test") if test is None else as_data(test)]
    if test is None:
        raise DataError("test images are missing; give test=..., or name a data set")
    return [as_data(data), as_data(test)]


def classifiers(models: Modules, data: Data) -> list[Model]:
    """Modules as checked `Model` objects.

    Raises:
        ModelError: a module that is not a classifier.
    """
    found = []
    for module in listed(models):
        model = wrap(module, shape=data.shape)
        few, _ = data.batch(torch.arange(min(8, len(data))), device_of(model))
        inspect_classifier(model, few, data.classes if data.classes_known else None)
        found.append(model)
    return found


def listed(models: Modules) -> list[nn.Module]:
    """One or several as a list."""
    return [models] if isinstance(models, nn.Module) else list(models)


def _opened(
    model: Modules,
    transfer: Modules,
    data: Data | str | tuple[object, object],
    test: Data | tuple[object, object] | None,
) -> tuple[Data, Data, list[Model], list[Model], list[str]]:
    """Training images, test images, models to attack, models for evaluation only, the names of both."""
    learn, judged = both_splits(data, test)
    models, others = classifiers(model, learn), classifiers(transfer, learn)
    return learn, judged, models, others, [each.card.architecture for each in (*models, *others)]


def class_number(target: int | str, data: Data) -> int:
    """The number of a class, given its name or, where no class has that name, its number.

    Raises:
        ConfigError: there is no such class.
    """
    names = list(data.class_names)
    if str(target) in names:
        return names.index(str(target))
    if str(target).isdecimal() and int(target) < data.classes:
        return int(target)
    raise ConfigError(
        f"there is no class {target!r} in {data.name}{did_you_mean(str(target), names)}; name one of "
        f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}, or a number below {data.classes}"
    )


@contextmanager
def all_in_evaluation_mode(models: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode for every model inside; restores their modes afterwards."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluation_mode(model))
        yield


CANDIDATES = 500
"""Training images of the target class considered for the real-image baseline."""


@torch.inference_mode(False)
@torch.enable_grad()
def train_patch(
    model: Modules,
    data: Data | str | tuple[Any, Any],
    target: int | str,
    *,
    test: Data | tuple[Any, Any] | None = None,
    transfer: Modules = (),
    n: int = 1000,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> PatchResult:
    """Trains an adversarial patch that works at any position, and evaluates it.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits; or several such models, attacked together.
        data: training images: `Data`, a data set's name, or (images, labels).
        target: the target class, by name or number.
        test: test images; with a data set's name, its test split.
        transfer: further classifiers for evaluation only.
        n: test images at most, sampled at random.
        progress: True: bars or lines; False: none; None: bars in a terminal or a notebook; or your own.
        **settings: further keys of `advkit.trained_attacks.universal.settings.PatchSettings`.

    Returns:
        The figures, and ``.patch`` (C, h, w).

    Raises:
        ConfigError: an unknown class or setting.
        DataError: no images for training or evaluation.
        ModelError: a model that is not a classifier.
    """
    config = validate(PatchSettings, {"target": target, **settings}, "train_patch")
    learn, judged, models, others, names = _opened(model, transfer, data, test)
    few = random_subset(judged, n, config.seed)
    return make_patch(models, others, names, learn, few, config, progress=shown(progress))


def make_patch(
    models: Sequence[Model],
    others: Sequence[Model],
    names: Sequence[str],
    learn: Data,
    test: Data,
    config: PatchSettings,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> PatchResult:
    """`train_patch` with loaded models and data.

    Args:
        models: classifiers to attack.
        others: classifiers for evaluation only.
        names: of both, in order.
        learn: training images.
        test: test images.
        config: of the patch and its training.
        run: folder to resume from.
        progress: reports updates and evaluations.
    """
    start = time.perf_counter()
    target = class_number(config.target, learn)
    kind = Patch(config, learn.shape)
    everyone = [*models, *others]
    with all_in_evaluation_mode(everyone):
        trained = train(
            kind, models, learn, config, target=target, run=run, progress=progress, name="training the patch"
        )
        patches = _with_baselines(rounded_to_8_bits(trained), models[0], learn, target, config.seed)
        with progress.task("judging the patch", len(everyone) * judgements(kind), unit="judgement") as task:
            judged = tuple(
                judge_patch(
                    each,
                    name,
                    test,
                    kind,
                    {key: patch.to(device_of(each)) for key, patch in patches.items()},
                    target=target,
                    seed=config.seed,
                    trained_on=number < len(models),
                    task=task,
                )
                for number, (each, name) in enumerate(zip(everyone, names, strict=True))
            )
    result = PatchResult(
        train=learn.facts,
        test=test.facts,
        settings=config.model_dump(mode="json", include=set(PatchSettings.model_fields)),
        seconds=time.perf_counter() - start,
        environment=environment(),
        target=target,
        target_name=learn.class_names[target],
        shape=learn.shape,
        pixels=kind.pixels,
        classifiers=judged,
    )
    result._patch = patches["patch"][0].cpu()
    return result


def _with_baselines(patch: Tensor, model: Model, learn: Data, target: int, seed: int) -> dict[str, Tensor]:
    """The patch and three untrained ones, (1, C, h, w) each."""
    noise = rng.uniform(rng.keys(seed, "noise patch", torch.zeros(1, dtype=torch.int64)), patch.shape[1:])
    real = interpolate(
        _most_confident(model, learn, target), patch.shape[2:], mode="bilinear", antialias=True
    )
    return {
        "patch": patch,
        "noise": rounded_to_8_bits(noise),
        "grey": rounded_to_8_bits(torch.full_like(patch, 0.5)),
        "real": rounded_to_8_bits(real.clamp(0, 1)),
    }


def _most_confident(model: Model, learn: Data, target: int) -> Tensor:
    """(1, C, H, W) the image of a class with the highest confidence, among the first ones."""
    index = (learn.labels == target).nonzero()[:CANDIDATES, 0]
    if len(index) == 0:
        raise DataError(
            f"no training image is of the class {learn.class_names[target]!r}; choose another target"
        )
    few = learn.take(index)
    best = logits_of(model, few).softmax(1)[:, target].argmax()
    return few.batch(best[None])[0]


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
    config = validate(PerturbationSettings, settings, "train_universal")
    learn, judged, models, others, names = _opened(model, transfer, data, test)
    if threat is None:
        threat = threats.choose(config.norm, config.eps, models[0], learn, progress)
    threat = Threat.of(threat)
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
