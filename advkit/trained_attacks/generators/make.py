"""Trains and evaluates a perturbation generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advkit.attacks.advgan import NORMS
from advkit.attacks.perturb import device_of
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.core.stats import clopper_pearson
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import PerturbationGenerator
from advkit.trained_attacks.generators.distilled import Distilled, frozen_copy
from advkit.trained_attacks.generators.game import AdvGanGame, GeneratorTraining, Victim, WhiteBox
from advkit.trained_attacks.generators.judge import attackable, generate, hits, noise
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.trained_attacks.universal.judge import frequencies
from advkit.training.loop import repeat

HELD_OUT = 500
"""Training images held out at most, for evaluation during training."""


@dataclass(frozen=True)
class MadeGenerator:
    """The generator, and its figures by the names of `AdvGanResult`."""

    generator: PerturbationGenerator
    figures: Mapping[str, Any]


def make_generator(
    model: Model,
    learn: Data,
    test: Data,
    threat: Threat,
    target: int | None,
    config: AdvGanSettings,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> MadeGenerator:
    """Trains a generator against ``model`` and evaluates it on images that the model classifies correctly.

    Args:
        model: the classifier; its mode is restored and its gradients are untouched.
        threat: norm (linf or l2) and budget.

    Raises:
        ConfigError: another norm, unknown names or parameters.
        DataError: the model classifies no image correctly.
        DivergedError: a loss is no longer finite.
    """
    threat.refuse_other_norms(NORMS, "perturbation generators")
    device = device_of(model)
    game = AdvGanGame(config, threat, learn.shape, target, device)
    with evaluation_mode(model):
        rest, held = learn.holdout(min(0.1, HELD_OUT / len(learn)))
        held, judged = (attackable(model, data, target) for data in (held, test))
        victim: Victim
        if config.black_box is None:
            rest = attackable(model, rest, target)
            victim = WhiteBox(frozen_copy(model, rest))
        else:
            folder = None if run is None else run.path
            victim = Distilled(model, rest, config, device, folder=folder, progress=progress)
            rest = victim.images(target)
        training = GeneratorTraining(game, victim, model, rest, held)
        course = repeat(training, run=run, progress=progress, name="training the generator")
        generator = game.best()
        x, speed = generate(generator, judged, threat, device)
        met, predicted = hits(model, x, judged, threat, target)
        by_noise, _ = hits(model, noise(judged, threat, config.seed), judged, threat, target)
        correct = len(judged if target is None else attackable(model, test, None))
    figures = {
        "train": rest.facts,
        "n": len(test),
        "clean_correct": correct,
        "judged": len(judged),
        "hits": int(met.sum()),
        "hits_by_noise": int(by_noise.sum()),
        "rate": int(met.sum()) / len(judged),
        "interval": clopper_pearson(int(met.sum()), len(judged)),
        "becomes": frequencies(predicted[met], learn.class_names),
        "made_per_second": speed,
        "trained_per_second": course.images_per_second,
        "black_box": victim.facts(model, test) if isinstance(victim, Distilled) else None,
    }
    return MadeGenerator(generator, figures)
