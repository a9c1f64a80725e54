"""Adversarial training of a generator: some updates of each discriminator, then one of the generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.core import rng
from advkit.core.config import validate
from advkit.core.errors import ConfigError, did_you_mean
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.gan.augment import Augment
from advkit.gan.critic import Critic
from advkit.gan.game import Game
from advkit.gan.loss import GAN_LOSSES, GanLoss
from advkit.gan.regulariser import REGULARISERS, Regulariser
from advkit.gan.settings import GanTraining
from advkit.models import spectral
from advkit.models.card import Parent, Relation, Shape
from advkit.models.model import Model
from advkit.models.network import Discriminator, Generator, pairs
from advkit.training.schedule import factor


class GanGame(Game):
    """A generator, its moving average (EMA) and its discriminators; arguments and attributes as in `Game`."""

    figures = ("d_loss", "d_accuracy_real", "d_accuracy_fake", "g_loss", "augmented")
    shown = {"d_loss": "D loss", "d_accuracy": "D accuracy", "g_loss": "G loss"}
    shares = ("d_accuracy",)

    def __init__(self, config: GanTraining, data: Data, device: torch.device) -> None:
        super().__init__(config, data, device)
        _refuse_misfits(config, data)
        kind = GAN_LOSSES.get(config.loss)
        self.loss: GanLoss = kind(validate(kind.Config, config.parameters, f"GAN loss {config.loss!r}"))
        self.regularisers = _regularisers(config, self.loss)
        self.generator = cast(
            Generator, self._build(*self._as_generator(), "generator", classes=self.classes)
        )
        self.discriminators = {name: self._discriminator(name) for name in self.loss.discriminators}
        self.networks = {"generator": self.generator, **self.discriminators}
        self.ema = self._averaged(self.generator)
        self.optimisers = {
            "generator": self._adam(self.generator, config.rate_generator),
            **{name: self._adam(net, config.rate_discriminator) for name, net in self.discriminators.items()},
        }
        self.augment = Augment(
            config.augment, config.augment_probability, config.augment_target, config.batch_size, device
        )
        self.fresh = Order(len(data), config.batch_size, rng.derive(config.seed, "fresh"))

    @property
    def ema_generator(self) -> Generator:
        """The EMA generator."""
        return cast(Generator, self.ema.network)

    def update(self) -> Tensor:
        """Some updates of each discriminator, then one of the generator.

        Returns:
            (5,) on the device: the discriminators' mean loss, their accuracy on real and on generated images,
            the generator's loss, and the augmentation probability.
        """
        config, game, turns = self.config, self.loss, self.config.discriminator_steps
        self.set_rates(factor(config.schedule, self.step, self.steps))
        judgements = []
        with self.randomness(config.seed, "step"):
            for number in range(self.step * turns, (self.step + 1) * turns):
                real, labels = self.batch(number)
                last = number == (self.step + 1) * turns - 1
                with torch.set_grad_enabled(last and not game.fresh), self._autocast():
                    fake = self._draw(self.latent(self.ids, "latent", number), labels)
                for name in self.discriminators:
                    judgements.append(self._update_discriminator(name, real, fake.detach(), labels))
            if game.fresh:  # the generator answers to images that the discriminators have not seen
                real, labels = self.batch(self.step, self.fresh)
                with self._autocast():
                    fake = self._draw(self.latent(self.ids, "fresh", self.step), labels)
            with self._autocast(), _frozen(self.discriminators):
                critics = {name: self._critic(name, labels) for name in self.discriminators}
                g_loss = game.generate(critics, fake, real.detach())
                for critic in critics.values():
                    g_loss = g_loss + self._class_loss(critic, labels, fake)
                self._update("generator", g_loss)
        self.ema.update(self.generator, self.step)
        self.step += 1
        augmented = self.augment.probability if config.augment else torch.zeros_like(self.augment.probability)
        return torch.cat([torch.stack(judgements).mean(0), torch.stack([g_loss.detach().float(), augmented])])

    def _update_discriminator(self, name: str, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """One update; (3,) its loss without penalties, its accuracy on real and on generated images."""
        due = [term for term in self.regularisers if term.due(self.step)]
        through = {side for term in due for side in term.through}
        real, fake = real.requires_grad_("real" in through), fake.requires_grad_("fake" in through)
        critic = self._critic(name, labels)
        with self._autocast():
            judged = self.loss.judge(name, critic, real, fake)
            loss = judged.loss + self._class_loss(critic, labels, real, fake)
        for term in due:
            noise = torch.rand(len(real), device=self.device)
            penalty = term.penalty(critic, real, fake, judged, noise)
            loss = loss + penalty * term.weight(self.step, self.steps)
        self._update(name, loss)
        if name == self.loss.discriminators[0]:
            self.augment.adapt(judged.real, self.step)
        right = ((judged.real > 0).float().mean(), (judged.fake <= 0).float().mean())
        return torch.stack([judged.loss.detach().float(), *right])

    def evaluate(self, row: dict[str, Any], rate: float) -> None:
        """Adds the discriminators' accuracy on all images, too."""
        row["d_accuracy"] = (row["d_accuracy_real"] + row["d_accuracy_fake"]) / 2
        super().evaluate(row, rate)

    def _draw(self, latent: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator(latent, *self.generator.asked(labels))
        return images

    def _critic(self, name: str, labels: Tensor) -> Critic:
        config = self.config
        seen = labels if config.conditional == "projection" else None
        augment = self.augment if config.augment else None
        return Critic(self.discriminators[name], seen, augment, config.packing)

    def _class_loss(self, critic: Critic, labels: Tensor, *halves: Tensor) -> Tensor | float:
        """Cross-entropy of the auxiliary classifier (Odena et al. 2017), where there is one."""
        if self.config.conditional != "auxiliary":
            return 0.0
        return sum(cross_entropy(critic.classify(images), labels) for images in halves)

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs."""
        return {**super().state(), "augment": self.augment.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        super().restore(state)
        self.augment.restore(state["augment"])

    def average(self) -> Model:
        """The averaged generator."""
        return self._average(self._drawn_by(self.generator))

    def models(self) -> dict[str, Model]:
        """The generator, its moving average ("ema") and the discriminators."""
        generator = self._drawn_by(self.generator)
        discriminators = {
            name: self._model(
                spectral.plain(network) if self.config.spectral else network,
                "discriminator",
                *self._as_discriminator(),
                self._parent("discriminator-of", generator),
                shape=self._seen_shape,
                classes=self.classes,
            )
            for name, network in self.discriminators.items()
        }
        return {"generator": generator, "ema": self._average(generator), **discriminators}

    def _average(self, generator: Model) -> Model:
        return self._drawn_by(self.ema.network, self._parent("ema-of", generator))

    def _drawn_by(self, network: nn.Module, *parents: Parent) -> Model:
        return self._model(network, "generator", *self._as_generator(), *parents, classes=self.classes)

    def _parent(self, relation: Relation, generator: Model) -> Parent:
        return Parent(relation=relation, hash=generator.hash, name=f"{self.name}-generator")

    @property
    def classes(self) -> int | None:
        """Number of classes of a conditional generator; None without conditioning."""
        return None if self.config.conditional == "no" else self.data.classes

    @property
    def _seen_shape(self) -> Shape:
        channels, height, width = self.data.shape
        return (channels * self.config.packing, height, width)

    def _as_generator(self) -> tuple[str, dict[str, Any]]:
        """Its architecture and parameters."""
        name, own = f"{self.config.arch}-generator", self.config.generator
        if self.classes is None:
            return name, own
        return "conditional-generator", {"generator": name, "generator_config": own}

    def _as_discriminator(self) -> tuple[str, dict[str, Any]]:
        name, own = f"{self.config.arch}-discriminator", self.config.discriminator
        if self.classes is None:
            return name, own
        return f"{self.config.conditional}-discriminator", {"trunk": name, "trunk_config": own}

    def _discriminator(self, name: str) -> Discriminator:
        architecture, own = self._as_discriminator()
        network = self._build(architecture, own, name, shape=self._seen_shape, classes=self.classes)
        if self.config.spectral:
            with rng.scope("cpu", self.config.seed, "spectral", name):
                spectral.normalised(network)
        return cast(Discriminator, network.to(self.device))


def _refuse_misfits(config: GanTraining, data: Data) -> None:
    if config.arch not in pairs():
        near = did_you_mean(config.arch, pairs())
        raise ConfigError(
            f"there is no GAN architecture called {config.arch!r}{near}; known: {', '.join(pairs())}"
        )
    if config.packing > 1 and config.conditional != "no":
        raise ConfigError(
            "a pack mixes classes, so --packing and --conditional exclude each other; leave one of them out"
        )
    if config.augment_target is not None and not config.augment:
        raise ConfigError("--augment-target has nothing to adapt; choose augmentations with --augment")
    if config.conditional != "no" and len(data.labels.unique()) < 2:
        raise ConfigError(
            f"the images of {data.name!r} are all of one class, so a conditional GAN has nothing to learn; "
            "leave --conditional out"
        )


def _regularisers(config: GanTraining, loss: GanLoss) -> list[Regulariser]:
    given = config.regularisation
    names = loss.regularisers if config.regularisers is None else config.regularisers
    chosen = {REGULARISERS.entry(name).name: loss.regularisers.get(name, {}) for name in names}
    if idle := sorted(given.keys() - chosen.keys()):
        raise ConfigError(
            f"regularisation.{idle[0]} has parameters but is not used; add it to --regularisers"
        )
    made = []
    for name, own in chosen.items():
        kind = REGULARISERS.get(name)
        where = f"regulariser {name!r}"
        made.append(kind(validate(kind.Config, {**own, **given.get(name, {})}, where)))
    return made


@contextmanager
def _frozen(networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """Disables gradients of these weights: the generator's update does not need them."""
    for network in networks.values():
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks.values():
            network.requires_grad_(True)
