"""The training loop of all trainings, and `fit`, which trains a classifier on it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from advkit.core import distributed
from advkit.core.device import repeatable
from advkit.core.errors import DivergedError
from advkit.core.progress import SILENT, Progress, Share
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.training.extra import fitting
from advkit.training.objective import Objective
from advkit.training.settings import Fitting, Several
from advkit.training.several import refuse_misfits
from advkit.training.trainer import Trained, Trainer
from advkit.training.training import Course, Training

LOOK_EVERY = 1.0
"""Seconds between looks at the losses; every look waits for the device."""
LOOK_TOGETHER = 50
"""Steps between looks where several processes, whose clocks differ, must look at the same time."""
SAVE_EVERY = 60.0
"""Seconds after which a state to resume from is written between two that are due, too."""


def repeat(
    training: Training,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
    name: str = "training",
) -> Course:
    """Repeats the step of a training to its end.

    Args:
        run: folder for metrics and the state to resume from; None keeps nothing.

    Raises:
        ConfigError: the folder has a state of another version of advkit.
        DivergedError: a loss is no longer finite; the last state stays.
    """
    unit, history = training.unit, list[dict[str, Any]]()
    sums, since = torch.zeros(len(training.figures), device=training.device), 0
    if run is not None and (state := run.load_state("training", "sums", "since")) is not None:
        training.restore(state["training"])
        sums.copy_(state["sums"])
        since, history = state["since"], run.history()
        progress.say(f"resuming at {unit} {training.step} of {training.steps}")
    warned: dict[str, str] = {}
    for at in range(len(history)):
        _new_warnings(training, history[: at + 1], warned)
    first, spent, facts, reason = training.step, 0.0, dict[str, float](), training.end(history)
    task = progress.task(name, training.steps, done=first, unit=unit)
    with repeatable(), training.opened(run), task:
        shown, tick = first, time.perf_counter()
        saved = tick
        while training.step < training.steps and not reason:
            sums += training.update()
            step = training.step
            due = step in training.rows
            if not (due or _time_to_look(step, tick)):
                continue
            row = _means(training, sums / (step - since))
            spent += time.perf_counter() - tick
            rate = (step - first) * training.batch_size / spent
            if due:
                training.evaluate(row, rate)
                history.append({"step": step, **row})
                if run is not None:
                    run.metrics(step, **row)
                for warning in _new_warnings(training, history, warned):
                    progress.say(warning)
                sums.zero_()
                since = step
            for key, title in training.shown.items():
                if key in row:
                    facts[title] = Share(row[key]) if key in training.shares else row[key]
            task.advance(step - shown, **facts, **{"images/s": rate})
            late = distributed.share(time.perf_counter() - saved > SAVE_EVERY)
            if run is not None and (step in training.saves or late):
                run.save_state({"step": step, "training": training.state(), "sums": sums, "since": since})
                saved = time.perf_counter()
            reason = training.end(history) if due else ""
            shown, tick = step, time.perf_counter()
    if reason and training.step < training.steps:
        progress.say(f"stopped at {unit} {training.step} of {training.steps}: {reason}")
    rate = (training.step - first) * training.batch_size / spent if spent else 0.0
    return Course(history, list(warned.values()), rate, first)


def _time_to_look(step: int, last: float) -> bool:
    if distributed.world() > 1:
        return step % LOOK_TOGETHER == 0
    return time.perf_counter() - last >= LOOK_EVERY


def _means(training: Training, means: torch.Tensor) -> dict[str, float]:
    """The figures by their names; the only place where the host waits for the device.

    Raises:
        DivergedError: a loss is not finite.
    """
    distributed.average([means])
    row = dict(zip(training.figures, means.tolist(), strict=True))
    for name, value in row.items():
        if "loss" in name and not math.isfinite(value):
            place = f"{training.unit} {training.step} of {training.steps}"
            raise DivergedError(f"training diverged at {place}: {name} is {value}; {training.remedy}")
    return row


def _new_warnings(training: Training, rows: Sequence[Mapping[str, Any]], warned: dict[str, str]) -> list[str]:
    """Warnings at the last of the rows of kinds not in ``warned``, to which they are added."""
    place = f"{training.unit} {rows[-1]['step']}"
    found = training.warnings(rows).items()
    new = {kind: f"{place}: {sentence}" for kind, sentence in found if kind not in warned}
    warned |= new
    return list(new.values())


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
        held: images, none of ``train``, on which the best checkpoint is chosen: by robust accuracy (PGD-10,
            in all threat models) if there is a threat, else by clean accuracy, unless the objective has a
            criterion of its own. None keeps the last weights.
        extra: more images, of which every batch takes the share ``config.extra_fraction``.
        union: how several threat models count.
        patience: checks without a better one after which training stops; None: it never does.
        run: folder for metrics and the state to resume from; None keeps nothing.
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
    for one in threats:
        one.refuse_misfit(train.shape)
    if run is not None:
        hashes = {"model": model.hash, "training images": train.fingerprint}
        run.begin_with(**hashes, **{"extra images": extra and extra.fingerprint})
    trainer = Trainer(
        model,
        config,
        train,
        objective,
        threats,
        torch.device(device),
        rates or {},
        extra and fitting(extra, train),
        union,
        held=held,
        patience=patience,
    )
    return trainer.trained(repeat(trainer, run=run, progress=progress, name=name))
