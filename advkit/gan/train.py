"""Training of a GAN or a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.game import Game
from advkit.gan.settings import GanTraining
from advkit.gan.variational import VaeGame
from advkit.models.model import Model
from advkit.training.loop import repeat
from advkit.training.training import Course

KINDS: dict[str, type[Game]] = {"gan": GanGame, "vae": VaeGame}


@dataclass(frozen=True)
class TrainedGan(Course):
    """What training leaves."""

    models: Mapping[str, Model]
    """By the names under which they are kept; "ema" is the averaged generator."""


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
        data: images to learn, and their classes where the generator is to be asked for them.
        run: folder for metrics, grids of samples and the state to resume from; None keeps nothing.
        progress: shows the losses, the discriminator's accuracy and images a second.

    Raises:
        ConfigError: unknown names, or a batch larger than the data.
        DivergedError: a loss is no longer finite; the last checkpoint stays.
    """
    game = begin(config, data, torch.device(device))
    course = repeat(game, run=run, progress=progress, name=f"training the {config.kind.upper()}")
    return TrainedGan(**vars(course), models=game.models())
