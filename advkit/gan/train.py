"""The loop of generative training: steps, metrics, grids of samples and states to resume from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.core import distributed, memory
from advkit.core.errors import DivergedError
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.game import Game
from advkit.gan.monitor import warnings
from advkit.gan.sample_logger import SampleLogger
from advkit.gan.settings import GanTraining
from advkit.gan.variational import VaeGame
from advkit.models.model import Model
from advkit.training.diverged import stop_if_diverged

LOG_EVERY = 50
KINDS: dict[str, type[Game]] = {"gan": GanGame, "vae": VaeGame}


@dataclass(frozen=True)
class TrainedGan:
    """What training leaves."""

    models: Mapping[str, Model]
    """By the names under which they are kept; "ema" is the averaged generator."""
    images_per_second: float
    """Real images seen a second of training, the sampling of grids left out."""
    resumed_at: int
    """Step at which this process began; 0 when it was the first."""


def begin(config: GanTraining, data: Data, device: torch.device) -> Game:
    """The game of a configuration, before its first step.

    Raises:
        ConfigError: unknown names, or options that do not go with the data or with each other.
    """
    return KINDS[config.kind](config, data, device)


def train_gan(
    config: GanTraining,
    data: Data,
    *,
    run: RunFolder | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> TrainedGan:
    """Trains a generator and its discriminators.

    Args:
        config: what to do.
        data: images to learn, and their classes where the generator is to be asked for them.
        run: folder for metrics, grids of samples and the state to resume from; None keeps nothing.
        device: where to work.
        progress: shows the losses, the discriminator's accuracy and images a second.

    Raises:
        ConfigError: unknown names, or a batch larger than the data.
        DivergedError: a loss is no longer finite; the last checkpoint stays.
    """
    game = begin(config, data, torch.device(device))
    state = run.load_state() if run is not None else None
    if state is not None:
        game.restore(state)
        progress.say(f"resuming at step {game.step} of {config.steps}")
    logger = SampleLogger(game, run if distributed.rank() == 0 else None)
    warned: set[str] = set()
    first, spent = game.step, 0.0
    title = f"training the {config.kind.upper()}"
    shown = progress.task(title, config.steps, done=first)
    with memory.kept(), shown as task, logger.board as board:
        figures, tick = [], time.perf_counter()
        while game.step < config.steps:
            figures.append(game.train_step())
            last = game.step == config.steps
            samples_due = game.step % config.sample_every == 0 or last
            state_due = game.step % config.checkpoint_every == 0 or last
            if not (game.step % LOG_EVERY == 0 or samples_due or state_due):
                continue
            row = _summary(game, torch.stack(figures))
            losses = {name: value for name, value in row.items() if "loss" in name}
            stop_if_diverged(f"step {game.step}", losses, REMEDY)
            spent += time.perf_counter() - tick
            row["images_per_second"] = (game.step - first) * config.batch_size / spent
            shown_values = {TITLES[name]: value for name, value in row.items() if name in TITLES}
            task.advance(len(figures), **shown_values)
            if samples_due:
                row |= distributed.share(logger.log() if distributed.rank() == 0 else {})
            for kind, warning in warnings(row).items():
                if kind not in warned:
                    warned.add(kind)
                    progress.say(f"step {game.step}: {warning}")
            board.row(game.step, row)
            if run is not None:
                run.metrics(game.step, **row)
                if state_due:  # with its row written, so that a resumed run writes the same rows
                    run.save_state(game.state())
            if config.stop_on_collapse and "collapse" in warnings(row):
                raise DivergedError(
                    f"the generator has collapsed at step {game.step}, and --stop-on-collapse was asked for; "
                    "its best average so far is best.safetensors in the run folder"
                )
            figures, tick = [], time.perf_counter()
    rate = (game.step - first) * config.batch_size / spent if spent else 0.0
    return TrainedGan(game.models(), rate, first)


REMEDY = "try smaller learning rates (--rate-generator, --rate-discriminator)"
TITLES = {
    "loss": "loss",
    "d_loss": "D loss",
    "d_accuracy": "D accuracy",
    "g_loss": "G loss",
    "images_per_second": "images/s",
}
"""What progress calls the figures that it shows."""


def _summary(game: Game, figures: Tensor) -> dict[str, float]:
    """Means over the steps since the last row; the only place where the host waits for the device."""
    means = figures.mean(0)
    distributed.average([means])
    row = dict(zip(game.figures, means.tolist(), strict=True))
    if "d_loss" in row:
        row["d_accuracy"] = (row["d_accuracy_real"] + row["d_accuracy_fake"]) / 2
    return row
