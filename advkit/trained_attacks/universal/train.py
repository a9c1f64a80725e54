"""The training loop of a universal change.

Every random number is a function of (seed, sample, update), so the state of a run is the change, its velocity
and the number of updates: a run that is resumed ends with the same change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core import memory, rng
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.trained_attacks.universal.change import Change
from advkit.trained_attacks.universal.settings import ChangeSettings
from advkit.training.diverged import stop_if_diverged

CHECKS = 20
"""Number of checks, evenly spaced: metrics and a checkpoint."""
SAVE_EVERY = 10.0
"""Seconds between checkpoints, if checks are rarer."""


def train(
    change: Change,
    models: Sequence[Model],
    data: Data,
    config: ChangeSettings,
    *,
    target: int | None,
    clip: float = float("inf"),
    run: RunFolder | None = None,
    progress: Progress = SILENT,
    name: str = "training",
) -> Tensor:
    """The change that minimises the models' mean loss of the target, or maximises that of the label.

    Steepest ascent with momentum on normalised gradients; the step size decreases linearly to 0.

    Args:
        change: to train.
        models: classifiers to attack, in eval mode and on one device.
        data: training images.
        config: updates, batch size and seed.
        target: target class; None: any other than the label.
        clip: largest loss of an image, without a target.
        run: folder for metrics and checkpoints; None: nothing is written.
        progress: reports the loss and the share of misclassified images.
        name: of the progress task.

    Returns:
        (1, C, h, w), on the models' device.

    Raises:
        ConfigError: a run that was started with other models or images.
        DivergedError: the loss is no longer finite.
    """
    device = device_of(models[0])
    order = Order(len(data), min(config.batch_size, len(data)), config.seed)
    now = change.start().to(device)
    velocity, sums, step, since = torch.zeros_like(now), torch.zeros(2, device=device), 0, 0
    if run is not None:
        run.begin_with(**{"models": [model.hash for model in models], "training images": data.fingerprint})
    if run is not None and (state := run.load_state()) is not None:
        now, velocity, sums = (state[key].to(device) for key in ("change", "velocity", "sums"))
        step, since = state["step"], state["since"]
        progress.say(f"resuming at update {step} of {config.steps}")
    checks = {round(config.steps * (i + 1) / CHECKS) for i in range(CHECKS)} - {0}
    saved = time.perf_counter()
    with memory.kept(), progress.task(name, config.steps, done=step, unit="update") as task:
        reported = step
        while step < config.steps:
            index = order.batch(step)
            x, label = data.batch(index, device)
            key = rng.keys(config.seed, "change", data.ids[index].to(device), step)
            leaf = now.detach().requires_grad_(True)
            losses, misled = _losses(models, change.apply(leaf, x, key), label, target, clip)
            (uphill,) = torch.autograd.grad(losses.mean(), leaf)
            velocity = config.momentum * velocity + uphill / uphill.abs().mean().clamp(min=1e-20)
            now = change.ascend(now, velocity, 1 - step / config.steps)
            sums += torch.stack([losses.detach().mean(), misled])
            step += 1
            if step not in checks and time.perf_counter() - saved < SAVE_EVERY:
                continue
            loss, share = (sums / (step - since)).tolist()
            remedy = "check the classifier's outputs on such images"
            stop_if_diverged(f"update {step} of {config.steps}", {"the loss": loss}, remedy)
            if step in checks:
                if run is not None:
                    run.metrics(step, loss=loss, misled=share)
                sums, since = torch.zeros_like(sums), step
            if run is not None:
                state = {"step": step, "since": since, "change": now, "velocity": velocity, "sums": sums}
                run.save_state(state)
            saved = time.perf_counter()
            task.advance(step - reported, misled=share)
            reported = step
    return now


def _losses(
    models: Sequence[Model], x: Tensor, label: Tensor, target: int | None, clip: float
) -> tuple[Tensor, Tensor]:
    """((R,) loss to maximise, the share of misclassified images), averaged over the models."""
    reference = label if target is None else torch.full_like(label, target)
    losses, misled = x.new_zeros(len(x)), x.new_zeros(())
    for model in models:
        logits = query(model, x)
        entropy = cross_entropy(logits, reference, reduction="none")
        losses = losses + (entropy.clamp(max=clip) if target is None else -entropy)
        equal = logits.argmax(1) == reference
        misled = misled + (equal if target is not None else ~equal).float().mean()
    return losses / len(models), misled / len(models)
