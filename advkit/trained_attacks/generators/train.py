"""The loop: batches, metrics, held-out success and states to resume from.

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
from advkit.data.data import Data
from advkit.data.order import Order
from advkit.models.network import PerturbationGenerator
from advkit.trained_attacks.generators.game import FIGURES, AdvGanGame
from advkit.trained_attacks.generators.judge import misled
from advkit.training.diverged import stop_if_diverged

SAVE_EVERY = 30.0
"""Seconds after which a state to resume is written between two checks, too."""


@dataclass(frozen=True)
class TrainedAdvGan:
    """What training leaves."""

    generator: PerturbationGenerator
    """In eval mode; averaged where the run averages."""
    images_per_second: float
    """Of training; 0 when there was nothing left to do."""


class Victim(ABC):
    """What the generator's gradients come from."""

    @abstractmethod
    def ready(self, game: AdvGanGame) -> nn.Module:
        """The classifier to differentiate through in the next update, in eval mode on the game's device."""

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave; here there is nothing to restore."""
        assert not state


class WhiteBox(Victim):
    """A classifier that is known (white box).

    Args:
        network: images in [0, 1] to logits.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def ready(self, game: AdvGanGame) -> nn.Module:
        """Always the same."""
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
    """Plays ``game`` to its end.

    Args:
        game: before its first update.
        victim: what is differentiated through.
        model: classifier to mislead, which tells the success on held-out images; in eval mode.
        data: images to learn on, all of which are classified as their labels say.
        held: images to look at as training goes on, which the model classifies correctly.
        run: folder for metrics and the state to resume from; None keeps nothing.
        progress: told losses, success and images a second as it goes.

    Raises:
        DivergedError: a loss is no longer finite; the last state stays.
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
    first, told, spent = game.step, game.step, 0.0
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
            stop_if_diverged(place, losses, f"try a smaller --rate (it was {config.rate:g})")
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
            task.advance(game.step - told, **facts)
            told, tick = game.step, time.perf_counter()
            saved = tick
    speed = (game.step - first) * order.batch_size / spent if spent else 0.0
    return TrainedAdvGan(game.best(), speed)
