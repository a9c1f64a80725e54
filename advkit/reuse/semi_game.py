"""The game of a classifier with K+1 classes against a generator (Salimans et al. 2016, section 5).

The classifier has K logits; that of the class "generated" is held at 0, which loses nothing, so an image is
real with probability Z / (Z + 1), where Z is the sum of exp(logit).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from advkit.core import rng
from advkit.core.errors import ConfigError, did_you_mean
from advkit.core.warp import frame, look_up
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.models.architectures.reused import TrunkClassifier
from advkit.models.card import ModelCard
from advkit.models.layers import standardising
from advkit.models.model import Model
from advkit.models.network import Generator, build, pairs
from advkit.reuse.classifier import pretrained
from advkit.reuse.settings import SemiSupervised
from advkit.training.ema import Ema
from advkit.training.training import TrainedNetworks, Training, multiples

FLAT = 2 / 3
"""Share of the run over which the learning rate stays; then it decreases linearly to 0."""
USUAL = 0.99
"""Decay of the mean of those probabilities, an update."""
PAIR = "noisy-mlp"


def real_loss(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(-log D, D) of each image, from its logits (N, K): D = Z / (Z + 1) is the probability of being real."""
    log_z = logits.float().logsumexp(1)
    return softplus(-log_z), log_z.sigmoid()


def fake_loss(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(-log(1 - D), D) of each image, from its logits (N, K)."""
    log_z = logits.float().logsumexp(1)
    return softplus(log_z), log_z.sigmoid()


def aligned(probabilities: Tensor, usual: Tensor) -> Tensor:
    """A teacher's (N, K) probabilities as they would be had it no favourite classes (Berthelot et al. 2020,
    ReMixMatch): over the usual ones (K,), since all classes are thought as frequent."""
    ratio = probabilities / usual
    return ratio / ratio.sum(1, keepdim=True)


def sure_loss(logits: Tensor, teacher: Tensor, least: float) -> Tensor:
    """Mean cross-entropy of ``logits`` (N, K) to the classes whose probability by a teacher (N, K) is at
    ``least`` so high; 0 for the other images (Sohn et al. 2020, FixMatch)."""
    probability, label = teacher.max(1)
    return (cross_entropy(logits.float(), label, reduction="none") * (probability >= least)).mean()


def matching(fake: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of the mean features of two batches (N, D): what the generator minimises."""
    return (fake.float().mean(0) - real.float().mean(0)).square().mean()


class SemiGame(TrainedNetworks, Training):
    """A classifier, whose EMA is kept, and a generator.

    Args:
        labelled: images with the labels that may be used.
        unlabelled: all training images; their labels are not looked at.
        discriminator: whose weights to begin with, or None.

    Raises:
        ConfigError: there is no such pair of networks, or it is not that of ``discriminator``.
        DataError: ``discriminator`` takes other images.
    """

    ema: Ema[Model]
    figures = ("labelled_loss", "unlabelled_loss", "g_loss", "labelled_accuracy", "real", "fake")
    shown = dict(zip(figures, figures, strict=True))
    shares = ("labelled_accuracy",)

    def __init__(
        self,
        config: SemiSupervised,
        labelled: Data,
        unlabelled: Data,
        discriminator: Model | None,
        device: torch.device,
    ) -> None:
        self.config, self.labelled, self.unlabelled, self.device = config, labelled, unlabelled, device
        self.pair = _pair(config, discriminator)
        with rng.scope("cpu", config.seed, "init", "generator"):
            generator = build(f"{self.pair}-generator", shape=unlabelled.shape, config=config.generator)
        self.model: Model = self._classifier(discriminator).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator = cast(Generator, generator).to(device)
        self.parameters = list(self.model.parameters())
        self.ema = Ema(self.model, config.ema)
        self.networks = {"classifier": self.model, "generator": self.generator}
        betas = (config.beta1, 0.999)
        self.optimisers = {
            "classifier": self.adam(self.model, config.rate, betas),
            "generator": self.adam(self.generator, config.rate_generator, betas),
        }
        self.usual = torch.full((unlabelled.classes,), 1 / unlabelled.classes, device=device)
        """Mean probabilities that the averaged classifier gave lately."""
        self.labels = Order(len(labelled), config.batch_size, config.seed)
        self.images = Order(len(unlabelled), config.batch_size, config.seed)
        self.steps = config.epochs * -(-len(unlabelled) // config.batch_size)
        self.batch_size = config.batch_size
        self.rows = self.saves = multiples(config.checkpoint_every, self.steps)
        self.remedy = f"try a smaller --rate (it was {config.rate:g})"

    def _classifier(self, discriminator: Model | None) -> Model:
        """The classifier to train: with the discriminator's weights under a fresh head, or all new."""
        config, data = self.config, self.unlabelled
        if discriminator is not None:
            return pretrained(discriminator, data, config.seed).train()
        parameters = {"trunk": f"{self.pair}-discriminator", "trunk_config": config.discriminator}
        with rng.scope("cpu", config.seed, "init"):
            network = build("trunk-classifier", shape=data.shape, classes=data.classes, config=parameters)
            few = rng.permutation(config.seed, "standardise", len(data))[:500]
            with standardising(network), torch.no_grad():
                network.train()(data.batch(few)[0])
        card = ModelCard(
            role="classifier",
            architecture="trunk-classifier",
            config=parameters,
            shape=data.shape,
            classes=data.classes,
            labels=data.class_names,
        )
        return Model(network, card)

    def update(self) -> Tensor:
        """One update of the classifier and, from the same passes through it, one of the generator.

        Returns:
            (6,) on the device, as `figures` names them: losses on labelled images, on all others and of the
            generator; accuracy on the labelled ones; how likely real and generated images are thought real.
        """
        config = self.config
        x, y = self._batch(self.labelled, self.labels)
        still, _ = self._batch(self.unlabelled, self.images)
        x, real = self._moved(x, "labelled"), self._moved(still, "unlabelled")
        self.set_rates(min(1.0, (1 - self.step / self.steps) / (1 - FLAT)))
        bfloat16 = torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
        network = cast(TrunkClassifier, self.model.network)
        with rng.scope(self.device, config.seed, "step", self.step):
            keys = rng.keys(
                config.seed, "latent", torch.arange(config.batch_size, device=self.device), self.step
            )
            with bfloat16:
                drawn = self.generator(self.generator.draw(keys)).float()
                fake = drawn.detach().requires_grad_()
                features, features_fake = network.features(torch.cat([x, real])), network.features(fake)
                on_labelled, on_real = network.head(features).float().split(config.batch_size)
                on_fake = network.head(features_fake)
                taught = self._teach(still) if config.teach else None
            supervised = cross_entropy(on_labelled, y)
            (lost_real, likely_real), (lost_fake, likely_fake) = real_loss(on_real), fake_loss(on_fake)
            unsupervised = (lost_real.mean() + lost_fake.mean()) / 2
            wanting = matching(features_fake, features[config.batch_size :].detach())
            (uphill,) = torch.autograd.grad(wanting, fake, retain_graph=True)
            loss = config.supervised * supervised + unsupervised
            if taught is not None:
                loss = loss + config.teach * sure_loss(on_real, taught, config.sure)
            loss.backward(inputs=self.parameters)
            drawn.backward(uphill)
            for optimiser in self.optimisers.values():
                optimiser.step()
                optimiser.zero_grad()
        self.ema.update(self.model, self.step)
        self.step += 1
        right = (on_labelled.argmax(1) == y).float().mean()
        figures = (supervised, unsupervised, wanting, right, likely_real.mean(), likely_fake.mean())
        return torch.stack([figure.detach() for figure in figures])

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Tensor:
        """(N, K) probabilities by the averaged classifier, which sees the images without noise."""
        probabilities = self.ema.network(images).float().softmax(1)
        self.usual.lerp_(probabilities.mean(0), 1 - USUAL)
        return aligned(probabilities, self.usual)

    def _batch(self, data: Data, order: Order) -> tuple[Tensor, Tensor]:
        return data.batch(order.batch(self.step), self.device)

    def _moved(self, images: Tensor, stream: str) -> Tensor:
        """Shifted, turned and zoomed, each place of the batch otherwise: an image may be there twice."""
        config = self.config
        if not (config.shift or config.turn or config.zoom):
            return images
        places = torch.arange(len(images), device=self.device)
        drawn = rng.uniform(rng.keys(config.seed, stream, places, self.step), (4,)) * 2 - 1
        height, width = images.shape[2:]
        size = (drawn[:, 3] * math.log1p(config.zoom)).exp() / 2
        across, down = (side / 2 + config.shift * drawn[:, i] for i, side in enumerate((width, height)))
        u, v = frame(height, width, across, down, config.turn * drawn[:, 2], width * size, height * size)
        return look_up(images, u, v, "zeros")

    def evaluate(self, row: dict[str, Any], rate: float) -> None:
        """Adds the epoch."""
        row["epoch"] = self.step * self.batch_size / len(self.unlabelled)

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs."""
        return {**super().state(), "usual": self.usual}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        super().restore(state)
        self.usual.copy_(state["usual"])


def _pair(config: SemiSupervised, discriminator: Model | None) -> str:
    """Name of the pair of networks."""
    if discriminator is None:
        pair = config.arch or PAIR
        if pair not in pairs():
            near = did_you_mean(pair, pairs())
            raise ConfigError(f"there is no pair called {pair!r}{near}; known: {', '.join(pairs())}")
        return pair
    pair = discriminator.card.architecture.removesuffix("-discriminator")
    if pair not in pairs():
        raise ConfigError(
            f"no generator is registered for {discriminator.card.architecture!r} (--model); "
            f"give a discriminator of one of the pairs {', '.join(pairs())}"
        )
    if config.arch not in (None, pair):
        raise ConfigError(f"{config.model} is of the pair {pair}, not {config.arch}; leave --arch out")
    if config.discriminator:
        raise ConfigError(f"{config.model} has its own parameters; leave --set discriminator... out")
    return pair
