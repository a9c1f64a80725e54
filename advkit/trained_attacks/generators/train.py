"""The training of a perturbation generator against a classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from advkit.data.data import Data
from advkit.data.order import Order
from advkit.trained_attacks.generators.game import FIGURES, AdvGanGame
from advkit.trained_attacks.generators.judge import misled
from advkit.training.training import Training, evenly


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


class GeneratorTraining(Training):
    """The updates of a game on images that the classifier classifies correctly.

    Args:
        game: before its first update.
        victim: the source of gradients.
        model: classifier to attack, for the success on held-out images; in eval mode.
        data: training images.
        held: images for evaluation during training.
    """

    figures = FIGURES
    shown = {"misled": "misled", "held_out": "held out"}

    def __init__(self, game: AdvGanGame, victim: Victim, model: nn.Module, data: Data, held: Data) -> None:
        self.game, self.victim, self.model, self.data, self.held = game, victim, model, data, held
        config, self.device = game.config, game.device
        self.order = Order(len(data), min(config.batch_size, len(data)), config.seed)
        self.batch_size, self.steps = self.order.batch_size, config.steps
        self.rows = self.saves = evenly(config.checks, config.steps)
        self.remedy = f"use a smaller --rate (it was {config.rate:g})"

    @property
    def step(self) -> int:
        """That of the game."""
        return self.game.step

    def update(self) -> Tensor:
        """One update of generator and discriminator."""
        network = self.victim.ready(self.game)
        x, label = self.data.batch(self.order.batch(self.step), self.device)
        return self.game.train_step(network, x, label)

    def evaluate(self, row: dict[str, Any], rate: float) -> None:
        """Adds the success on the held-out images."""
        hits = misled(self.model, self.game.best(), self.held, self.game.threat, self.game.target)
        row["held_out"] = float(hits.float().mean())

    def state(self) -> dict[str, Any]:
        """The game's and the victim's."""
        return {"game": self.game.state(), "victim": self.victim.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state`."""
        self.game.restore(state["game"])
        self.victim.restore(state["victim"])
