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
from advkit.gan.loss import GAN_LOSSES, GanLoss, Judgement
from advkit.gan.regulariser import REGULARISERS, Regulariser
from advkit.gan.settings import GanTraining
from advkit.models import spectral
from advkit.models.card import Parent, Relation, Shape
from advkit.models.model import Model
from advkit.models.network import Discriminator, Generator, pairs


class GanGame(Game):
    """A generator, its moving average (EMA) and its discriminators; arguments and attributes as in `Game`."""

    figures = ("d_loss", "d_accuracy_real", "d_accuracy_fake", "g_loss", "augmented")

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

    def train_step(self) -> Tensor:
        """One step.

        Returns:
            (5,) on the device: the discriminators' mean loss, their accuracy on real and on generated images,
            the generator's loss, and the augmentation probability.
        """
        turns = self.config.discriminator_steps
        figures = torch.zeros(len(self.figures), device=self.device)
        with self._randomness():
            for turn in range(turns):
                number = self.step * turns + turn
                real, labels = self.batch(number)
                last = turn == turns - 1 and not self.loss.fresh
                with torch.set_grad_enabled(last), self._autocast():
                    fake = self._draw(self.latent(self.ids, "latent", number), labels)
                for name in self.discriminators:
                    self._update_discriminator(name, real, fake.detach(), labels, figures)
            if self.loss.fresh:
                real, labels = self.batch(self.step, self.fresh)
                with self._autocast():
                    fake = self._draw(self.latent(self.ids, "fresh", self.step), labels)
            self._update_generator(real, fake, labels, figures)
        figures[4] = self.augment.probability if self.config.augment else 0.0
        self.ema.update(self.generator, self.step)
        self.step += 1
        return figures

    def _draw(self, latent: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator(latent, labels) if self.classes else self.generator(latent)
        return images

    def _update_discriminator(
        self, name: str, real: Tensor, fake: Tensor, labels: Tensor, figures: Tensor
    ) -> None:
        due = [term for term in self.regularisers if term.due(self.step)]
        through = {side for term in due for side in term.through}
        real, fake = real.requires_grad_("real" in through), fake.requires_grad_("fake" in through)
        critic = self._critic(name, labels)
        with self._autocast():
            judged = self.loss.judge(name, critic, real, fake)
            loss = judged.loss + self._class_loss(critic, labels, real, fake)
        for term in due:
            loss = loss + self._penalty(term, critic, real, fake, judged)
        self._update(name, loss)
        if name == self.loss.discriminators[0]:
            self.augment.adapt(judged.real, self.step)
        share = 1 / len(self.discriminators) / self.config.discriminator_steps
        figures[0] += judged.loss.detach() * share
        figures[1] += (judged.real > 0).float().mean() * share
        figures[2] += (judged.fake <= 0).float().mean() * share

    def _penalty(
        self, term: Regulariser, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement
    ) -> Tensor:
        noise = torch.rand(len(real), device=self.device)
        return term.penalty(critic, real, fake, judged, noise) * term.weight(self.step, self.config.steps)

    def _update_generator(self, real: Tensor, fake: Tensor, labels: Tensor, figures: Tensor) -> None:
        with self._autocast(), _frozen(self.discriminators):
            critics = {name: self._critic(name, labels) for name in self.discriminators}
            wanted = self.loss.generate(critics, fake, real.detach())
            for critic in critics.values():
                wanted = wanted + self._class_loss(critic, labels, fake)
            self._update("generator", wanted)
        figures[3] = wanted.detach()

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
