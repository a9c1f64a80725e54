"""Trains and evaluates patches and universal perturbations."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import rng
from advkit.core.bars import shown
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, did_you_mean, listed
from advkit.core.modes import own_modes
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder, environment
from advkit.core.threat import Norm, Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.load import as_data, load_data, same_classes
from advkit.data.subjects import open_subjects
from advkit.models.card import ThreatFacts
from advkit.models.inspect import inspect_classifier
from advkit.models.load import wrap
from advkit.models.model import Model, evaluation_mode
from advkit.trained_attacks.universal.change import Change, Patch, Perturbation
from advkit.trained_attacks.universal.judge import (
    judge_patch,
    judge_perturbation,
    judgements,
    random_subset,
    rounded_to_8_bits,
)
from advkit.trained_attacks.universal.result import PatchResult, PerturbationResult
from advkit.trained_attacks.universal.settings import (
    ChangeSettings,
    PatchSettings,
    PatchTraining,
    PerturbationSettings,
    PerturbationTraining,
)
from advkit.trained_attacks.universal.train import ChangeTraining
from advkit.training.loop import repeat

Modules = nn.Module | Sequence[nn.Module]
"""One classifier, or several."""
CANDIDATES = 500
"""Training images of the target class considered for the real-image baseline."""
NORMS: tuple[Norm, ...] = ("linf", "l2")
"""Norms of universal perturbations."""


@dataclass(frozen=True)
class Trial:
    """The classifiers and images of one universal change."""

    models: Sequence[Model]
    """Classifiers to attack."""
    others: Sequence[Model]
    """Classifiers for evaluation only."""
    names: Sequence[str]
    """Of both, in order."""
    learn: Data
    """Training images."""
    test: Data
    """Test images."""
    run: RunFolder | None = None
    """Folder to resume from."""
    progress: Progress = SILENT

    @classmethod
    def opened(
        cls,
        model: Modules,
        transfer: Modules,
        data: Data | str | tuple[Any, Any],
        test: Data | tuple[Any, Any] | None,
        n: int,
        seed: int,
        progress: Progress,
    ) -> Trial:
        """Of the arguments of `train_patch` and `train_universal`.

        Raises:
            DataError: test images are missing.
            ModelError: a module that is not a classifier.
        """
        if test is None and not isinstance(data, str):
            raise DataError("test images are missing; give test=..., or name a data set")
        learn = load_data(data, "train") if isinstance(data, str) else as_data(data)
        whole = load_data(str(data), "test") if test is None else as_data(test)
        learn, whole = same_classes(learn, whole)
        models, others = (_classifiers(given, learn) for given in (model, transfer))
        names = [each.card.architecture for each in (*models, *others)]
        return cls(models, others, names, learn, random_subset(whole, n, seed), progress=progress)

    @classmethod
    def named(cls, config: PatchTraining | PerturbationTraining, context: Context) -> Trial:
        """Of the names that a command is given.

        Raises:
            UserError: whatever is wrong with a model or the data, or an unknown target class.
        """
        models, (learn, whole) = open_subjects(config, context, "train", "test", transfer=config.transfer)
        if config.target is not None:
            class_number(config.target, learn.class_names, learn.name)
        first, names = len(config.model), (*config.model, *config.transfer)
        test = random_subset(whole, config.n, config.seed)
        return cls(models[:first], models[first:], names, learn, test, progress=context.progress)

    @property
    def inputs(self) -> dict[str, Any]:
        """What a run begins with, for `RunFolder.open`."""
        answers = [answer for model in (*self.models, *self.others) for answer in model.answers]
        return {
            "models": [model.hash for model in self.models],
            "transfer models": [model.hash for model in self.others],
            **({"answers of the models": answers} if answers else {}),
            "training images": self.learn.fingerprint,
            "test images": self.test.fingerprint,
        }

    @contextmanager
    def trained(
        self, kind: Change, config: ChangeSettings, target: int | None, name: str, clip: float = math.inf
    ) -> Iterator[Tensor]:
        """The trained change, (1, C, h, w) on the models' device; inside, all classifiers are in eval mode.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        with ExitStack() as stack:
            for model in (*self.models, *self.others):
                stack.enter_context(evaluation_mode(model))
            training = ChangeTraining(kind, self.models, self.learn, config, target, clip)
            repeat(training, run=self.run, progress=self.progress, name=name)
            yield training.change

    def classifiers(self) -> Iterator[tuple[Model, dict[str, Any]]]:
        """Each classifier, with its name and whether it is attacked in training."""
        for number, model in enumerate((*self.models, *self.others)):
            yield model, {"name": self.names[number], "trained_on": number < len(self.models)}

    def facts(self, config: ChangeSettings, kind: type[ChangeSettings], start: float) -> dict[str, Any]:
        """The common fields of both results; the work began at ``start``."""
        return {
            "train": self.learn.facts,
            "test": self.test.facts,
            "settings": config.model_dump(mode="json", include=set(kind.model_fields)),
            "seconds": time.perf_counter() - start,
            "environment": environment(),
        }


def _classifiers(models: Modules, data: Data) -> list[Model]:
    """One or several modules as checked `Model` objects."""
    found = []
    for module in [models] if isinstance(models, nn.Module) else models:
        model = wrap(module, shape=data.shape)
        few, _ = data.batch(torch.arange(min(8, len(data))), device_of(model))
        inspect_classifier(model, few, data.classes if data.classes_known else None)
        found.append(model)
    return found


def class_number(target: int | str, names: Sequence[str], where: str) -> int:
    """The number of a class, given its name or, where none of ``names`` is its name, its number.

    Raises:
        ConfigError: there is no such class in ``where``.
    """
    if str(target) in names:
        return names.index(str(target))
    if str(target).isdecimal() and int(target) < len(names):
        return int(target)
    raise ConfigError(
        f"there is no class {target!r} in {where}{did_you_mean(str(target), names)}; name one of "
        f"{listed(names, 20)}, or a number below {len(names)}"
    )


@own_modes()
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
    trial = Trial.opened(model, transfer, data, test, n, config.seed, shown(progress))
    return make_patch(trial, config)


def make_patch(trial: Trial, config: PatchSettings) -> PatchResult:
    """`train_patch` with loaded models and data."""
    start = time.perf_counter()
    target = class_number(config.target, trial.learn.class_names, trial.learn.name)
    kind = Patch(config, trial.learn.shape)
    steps = len(trial.names) * judgements(kind)
    with trial.trained(kind, config, target, "training the patch") as trained:
        patches = _with_baselines(
            rounded_to_8_bits(trained), trial.models[0], trial.learn, target, config.seed
        )
        with trial.progress.task("judging the patch", steps, unit="judgement") as task:
            judged = tuple(
                judge_patch(
                    model, trial.test, kind, patches, target=target, seed=config.seed, task=task, **facts
                )
                for model, facts in trial.classifiers()
            )
    result = PatchResult(
        **trial.facts(config, PatchSettings, start),
        target=target,
        target_name=trial.learn.class_names[target],
        shape=trial.learn.shape,
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


@own_modes()
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
    config = validate(PerturbationSettings, settings, "train_universal")
    trial = Trial.opened(model, transfer, data, test, n, config.seed, shown(progress))
    if threat is None:
        threat = threats.choose(config.norm, config.eps, trial.models[0], trial.learn, trial.progress)
    return make_perturbation(trial, Threat.of(threat), config)


def make_perturbation(trial: Trial, threat: Threat, config: PerturbationSettings) -> PerturbationResult:
    """`train_universal` with loaded models and data; the norm and eps of ``config`` are ignored."""
    start = time.perf_counter()
    threat.refuse_other_norms(NORMS, "universal perturbations")
    names, target = trial.learn.class_names, None
    if config.target is not None:
        target = class_number(config.target, names, trial.learn.name)
    kind = Perturbation(threat, trial.learn.shape, config.rate)
    with trial.trained(kind, config, target, "training the perturbation", config.clip) as change:
        judged = tuple(
            judge_perturbation(
                model, test=trial.test, kind=kind, change=change, target=target, seed=config.seed, **facts
            )
            for model, facts in trial.classifiers()
        )
    result = PerturbationResult(
        **trial.facts(config, PerturbationSettings, start),
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        size=float(threat.distance(change, change * 0)),
        target=target,
        target_name="" if target is None else names[target],
        classifiers=judged,
    )
    result._perturbation = change[0].cpu()
    return result
