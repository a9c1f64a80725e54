"""A perturbation generator against its discriminator and a classifier, and their training."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from advkit.attacks.advgan import moved
from advkit.attacks.engine.oracle import query
from advkit.attacks.losses.margin import margin
from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.core.threat import Threat
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.gan.critic import Critic
from advkit.gan.losses.one_discriminator import LeastSquares
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES, Network, PerturbationGenerator, build
from advkit.trained_attacks.generators.judge import misled
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.training.ema import Ema
from advkit.training.schedule import factor
from advkit.training.training import TrainedNetworks, Training, average_over_processes, evenly

GENERATOR = "advgan-generator"
BETAS = (0.5, 0.999)
"""Of Adam, the usual values for GANs."""
FIGURES = ("margin_loss", "g_loss", "d_loss", "d_accuracy", "misled")
"""The figures of an update."""


class AdvGanGame(TrainedNetworks):
    """Minimises margin + gan_weight * GAN loss over the generator (Xiao et al. 2018, eq. 4).

    The paper's third term, a hinge on the size of the perturbation, is not needed: the output
    of the network respects the budget (`moved`). The classifier's parameters are neither differentiated nor
    changed.

    Args:
        target: target class; None: any other than the label.

    Raises:
        ConfigError: unknown names or parameters, or images too small for the networks.
    """

    def __init__(
        self, config: AdvGanSettings, threat: Threat, shape: Shape, target: int | None, device: torch.device
    ) -> None:
        self.config, self.threat, self.target, self.device = config, threat, target, device
        self.generator = cast(
            PerturbationGenerator, self._built(GENERATOR, shape, config.generator, "generator")
        )
        self.networks: dict[str, nn.Module] = {"generator": self.generator}
        if config.gan_weight:
            name = ARCHITECTURES.entry(f"{config.opponent}-discriminator").name
            self.networks["discriminator"] = self._built(name, shape, config.discriminator, "discriminator")
        self.ema = Ema(self.generator, config.ema) if config.ema else None
        self.optimisers = {
            name: torch.optim.Adam([{"params": [*net.parameters()], "peak": config.rate}], config.rate, BETAS)
            for name, net in self.networks.items()
        }
        self.loss = LeastSquares(StrictModel())

    def train_step(self, victim: nn.Module, x: Tensor, label: Tensor) -> Tensor:
        """One update of the discriminator, then one of the generator.

        Args:
            victim: images in [0, 1] to logits, in eval mode.
            x: (N, C, H, W) images that it classifies correctly.
            label: (N,) their classes.

        Returns:
            (5,) `FIGURES`, on the device.
        """
        self.set_rates(factor("cosine", self.step, self.config.steps))
        with rng.scope(self.device, self.config.seed, "update", self.step):
            figures = self._update(victim, x, label)
        if self.ema is not None:
            self.ema.update(self.generator, self.step)
        self.step += 1
        return figures

    def _update(self, victim: nn.Module, x: Tensor, label: Tensor) -> Tensor:
        fake = moved(self.threat, x, self.generator(x))
        d_loss, d_accuracy, gan_loss, uphill = self._discriminator_step(x, fake)
        leaf = fake.detach().requires_grad_(True)
        logits = query(victim, leaf)
        target = None if self.target is None else torch.full_like(label, self.target)
        lead = margin(logits, label, target)
        loss = (-lead).clamp(min=-self.config.kappa).mean()
        (gradient,) = torch.autograd.grad(loss, leaf)  # the classifier's parameters get none
        optimiser = self.optimisers["generator"]
        optimiser.zero_grad()
        fake.backward(gradient + self.config.gan_weight * uphill)
        average_over_processes(self.generator)
        optimiser.step()
        misled = (lead > 0).float().mean()
        return torch.stack([loss.detach(), gan_loss, d_loss, d_accuracy, misled])

    def _discriminator_step(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Updates the discriminator; returns its loss and accuracy, the generator's GAN loss, and the
        gradient of that loss to the images."""
        if "discriminator" not in self.networks:
            none = x.new_zeros(())
            return none, none, none, torch.zeros_like(fake)
        critic, optimiser = Critic(self.networks["discriminator"]), self.optimisers["discriminator"]
        judged = self.loss.judge("discriminator", critic, x, fake.detach())
        optimiser.zero_grad()
        judged.loss.backward()
        average_over_processes(self.networks["discriminator"])
        optimiser.step()
        accuracy = torch.cat([judged.real > 0, judged.fake <= 0]).float().mean()
        leaf = fake.detach().requires_grad_(True)
        gan_loss = self.loss.generate({"discriminator": critic}, leaf, x)
        (uphill,) = torch.autograd.grad(gan_loss, leaf)
        return judged.loss.detach(), accuracy, gan_loss.detach(), uphill

    def best(self) -> PerturbationGenerator:
        """A copy of the EMA generator, or of the generator without EMA, in eval mode."""
        network = self.generator if self.ema is None else self.ema.network
        return copy.deepcopy(network).eval().requires_grad_(False)

    def _built(self, architecture: str, shape: Shape, config: dict[str, Any], purpose: str) -> Network:
        with rng.scope("cpu", self.config.seed, "init", purpose):
            network = build(architecture, shape=shape, config=config)
        return network.to(self.device).train()


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
        model: classifier to attack, for the success on held-out images; in eval mode.
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
