"""The loop that trains classifiers, whatever the objective.

Every random number is a function of (seed, update), so the state of a run is its weights, their average,
the optimiser's moments, the best so far and the number of updates: a run that is resumed ends with the same
weights and the same metrics, bit for bit on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from advkit.core import distributed, memory
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.training.extra import fitting
from advkit.training.monitor import warnings
from advkit.training.objective import Objective
from advkit.training.score import measured, scores
from advkit.training.settings import Fitting, Several
from advkit.training.several import refuse_misfits
from advkit.training.trainer import Trained, Trainer

LOOK_EVERY = 1.0
"""Seconds between looks at the loss; every look waits for the device."""
LOOK_TOGETHER = 50
"""Updates between looks where several processes, whose clocks differ, must look at the same time."""
SAVE_EVERY = 60.0
"""Seconds after which a state to resume is written between two checks, too."""


def fit(
    model: Model,
    config: Fitting,
    train: Data,
    held: Data | None = None,
    *,
    objective: Objective,
    extra: Data | None = None,
    threat: Threat | None = None,
    also: Sequence[Threat] = (),
    union: Several = "max",
    patience: int | None = None,
    run: RunFolder | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
    rates: Mapping[str, float] | None = None,
    name: str = "training",
) -> Trained:
    """Trains a classifier.

    Args:
        model: where to begin; trained in place. Parts whose parameters need no gradient stay as they are
            and in eval mode.
        config: how to train.
        train: images to learn.
        held: images, not among those, on which the best checkpoint is chosen: by robust accuracy (PGD-10, in
            all threat models) if there is a threat, else by clean accuracy, unless the objective has a
            criterion of its own. None keeps the last weights.
        objective: what to minimise.
        extra: more images, of which every batch takes the share ``config.extra_fraction``.
        threat: what the attacker may change.
        also: further threat models, of other norms.
        union: how these count.
        patience: checks without a better one after which training stops; None: it never does.
        run: folder for metrics and the state to resume from; None keeps nothing.
        device: where to work.
        progress: shows loss, accuracies and images a second, and warnings.
        rates: factors of the learning rate for parameters whose names begin so; the first that fits counts.
        name: what progress calls it.

    Raises:
        ConfigError: nothing to train, an objective without the threat it needs or against one that it cannot
            be trained against, a run that began with another model or other images, or a batch without room
            for extra ones.
        DataError: extra images of another shape or of other classes.
        DivergedError: the loss is no longer finite; the last state stays.
    """
    threats = () if threat is None else (threat, *also)
    refuse_misfits(objective, threats, union)
    if run is not None:
        hashes = {"model": model.hash, "training images": train.fingerprint}
        run.begin_with(**hashes, **{"extra images": extra and extra.fingerprint})
    extra = extra and fitting(extra, train)
    device = torch.device(device)
    trainer = Trainer(model, config, train, objective, threats, device, rates or {}, extra, union)
    history: list[dict[str, Any]] = []
    if run is not None and (state := run.load_state()) is not None:
        trainer.restore(state)
        history = run.history()
        progress.say(f"resuming at update {trainer.step} of {trainer.steps}")
    warned = {kind for at in range(len(history)) for kind in warnings(history[: at + 1])}
    checks = {round(trainer.steps * (i + 1) / config.checks) for i in range(config.checks)} - {0}
    size, first = trainer.images.size, trainer.step
    spent, facts = 0.0, dict[str, float]()
    several = distributed.world() > 1
    with memory.kept(), progress.task(name, trainer.steps, done=first, unit="update") as task:
        shown, tick = first, time.perf_counter()
        saved = tick
        while trainer.step < trainer.steps and not (patience and trainer.waited >= patience):
            trainer.update()
            due = trainer.step in checks
            if not (due or _time_to_look(trainer.step, tick, several=several)):
                continue
            row = trainer.look(together=due or several)
            spent += time.perf_counter() - tick
            facts |= {"loss": row["loss"], "images/s": (trainer.step - first) * size / spent}
            if due:
                found = _checked(trainer, train, held)
                facts |= found
                row = {"epoch": trainer.step * size / len(train), **row, **found}
                history.append({"step": trainer.step, **row})
                if run is not None:
                    run.metrics(trainer.step, **row)
                for kind, warning in warnings(history).items():
                    if kind not in warned:
                        warned.add(kind)
                        progress.say(f"update {trainer.step}: {warning}")
            task.advance(trainer.step - shown, **facts)
            late = distributed.share(time.perf_counter() - saved > SAVE_EVERY)
            if run is not None and (due or late):
                run.save_state(trainer.state())
                saved = time.perf_counter()
            shown, tick = trainer.step, time.perf_counter()
    if trainer.step < trainer.steps:
        progress.say(
            f"stopped at update {trainer.step} of {trainer.steps}: {patience} checks without a better"
        )
    return trainer.trained(history, (trainer.step - first) * size / spent if spent else 0.0)


def _time_to_look(step: int, last: float, *, several: bool) -> bool:
    return step % LOOK_TOGETHER == 0 if several else time.perf_counter() - last >= LOOK_EVERY


def _checked(trainer: Trainer, train: Data, held: Data | None) -> dict[str, float]:
    """Scores of the candidate on the held-out images, and, to show robust overfitting, that which counts most
    on the first as many training images."""
    if held is None:
        trainer.checked({})
        return {}
    found = _scores(trainer, held)
    trainer.checked(found)
    if trainer.threats or trainer.objective.criterion:
        decisive = list(found)[-1]
        found[f"train_{decisive}"] = _scores(trainer, train.limit(len(held)))[decisive]
    return found


def _scores(trainer: Trainer, images: Data) -> dict[str, float]:
    seed, objective = trainer.config.seed, trainer.objective
    if objective.criterion:
        return measured(trainer.candidate, images, objective, trainer.threats, seed)
    return scores(trainer.candidate, images, trainer.threats, seed)
