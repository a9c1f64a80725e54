"""Trains, rounds and evaluates a patch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import rng
from advkit.core.bars import shown
from advkit.core.config import validate
from advkit.core.errors import DataError
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder, environment
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.trained_attacks.universal.judge import judge_patch, judgements, random_subset, rounded_to_8_bits
from advkit.trained_attacks.universal.patch import Patch
from advkit.trained_attacks.universal.result import PatchResult
from advkit.trained_attacks.universal.settings import PatchSettings
from advkit.trained_attacks.universal.subjects import (
    Modules,
    all_in_evaluation_mode,
    both_splits,
    class_number,
    classifiers,
)
from advkit.trained_attacks.universal.train import train

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
    progress = shown(progress)
    learn, judged = both_splits(data, test)
    config = validate(PatchSettings, {"target": target, **settings}, "train_patch")
    models, others = classifiers(model, learn), classifiers(transfer, learn)
    names = [each.card.architecture for each in (*models, *others)]
    return make_patch(
        models, others, names, learn, random_subset(judged, n, config.seed), config, progress=progress
    )


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
