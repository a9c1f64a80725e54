"""The training loop: batches, metrics, held-out success and checkpoints.

Every random number is a function of (seed, update), so a resumed run ends with the same weights.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from advkit.core import memory
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.models.network import PerturbationGenerator
from advkit.trained_attacks.generators.game import FIGURES, AdvGanGame
from advkit.trained_attacks.generators.judge import misled
from advkit.training.diverged import stop_if_diverged

SAVE_EVERY = 30.0
"""Seconds between checkpoints, if checks are rarer."""


@dataclass(frozen=True)
class TrainedAdvGan:
    """The result of training."""

    generator: PerturbationGenerator
    """In eval mode; with EMA weights if enabled."""
    images_per_second: float
    """Of training; 0 if there was nothing left to do."""


class Victim(ABC):
    """The source of the generator's gradients."""

    @abstractmethod
    def ready(self, game: AdvGanGame) -> nn.Module:
        """The classifier for the next update, in eval mode on the game's device."""

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state`; empty here."""
        assert not state


class WhiteBox(Victim):
    """White-box access to the classifier.

    Args:
        network: images in [0, 1] to logits.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def ready(self, game: AdvGanGame) -> nn.Module:
        """Always the same network."""
        return self._network


def train(
    game: AdvGanGame,
    victim: Victim,
    model: nn.Module,
    data: Data,
    held: Data,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> TrainedAdvGan:
    """Runs all updates of ``game``.

    Args:
        game: before its first update.
        victim: the source of gradients.
        model: classifier to attack, for the success on held-out images; in eval mode.
        data: training images, all classified correctly.
        held: correctly classified images for evaluation during training.
        run: folder for metrics and checkpoints; None: nothing is written.
        progress: reports losses, success and images per second.

    Raises:
        DivergedError: a loss is no longer finite; the last checkpoint remains.
    """
    config = game.config
    order = Order(len(data), min(config.batch_size, len(data)), config.seed)
    sums, since = torch.zeros(len(FIGURES), device=game.device), 0
    if run is not None and (state := run.load_state()) is not None:
        game.restore(state)
        victim.restore(state["victim"])
        sums, since = state["sums"].to(game.device), state["since"]
        progress.say(f"resuming at update {game.step} of {config.steps}")
    checks = {round(config.steps * (i + 1) / config.checks) for i in range(config.checks)} - {0}
    first, reported, spent = game.step, game.step, 0.0
    tick = saved = time.perf_counter()
    with (
        memory.kept(),
        progress.task("training the generator", config.steps, done=first, unit="update") as task,
    ):
        while game.step < config.steps:
            network = victim.ready(game)
            x, label = data.batch(order.batch(game.step), game.device)
            sums += game.train_step(network, x, label)
            due = game.step in checks
            if not due and time.perf_counter() - saved < SAVE_EVERY:
                continue
            means = (sums / (game.step - since)).tolist()
            row = dict(zip(FIGURES, means, strict=True))
            losses = {name: value for name, value in row.items() if "loss" in name}
            place = f"update {game.step} of {config.steps}"
            stop_if_diverged(place, losses, f"use a smaller --rate (it was {config.rate:g})")
            spent += time.perf_counter() - tick
            facts = {"misled": row["misled"], "images/s": (game.step - first) * order.batch_size / spent}
            if due:
                hits = misled(model, game.best(), held, game.threat, game.target)
                row["held_out"] = facts["held out"] = float(hits.float().mean())
                sums, since = torch.zeros_like(sums), game.step
                if run is not None:
                    run.metrics(game.step, **row)
            if run is not None:
                run.save_state({**game.state(), "victim": victim.state(), "sums": sums, "since": since})
            task.advance(game.step - reported, **facts)
            reported, tick = game.step, time.perf_counter()
            saved = tick
    speed = (game.step - first) * order.batch_size / spent if spent else 0.0
    return TrainedAdvGan(game.best(), speed)
