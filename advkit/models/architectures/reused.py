"""Classifiers and detectors on the networks of other architectures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, Discriminator, Network, Vae, architecture, inner


@architecture(
    "trunk-classifier",
    role="classifier",
    summary="a discriminator with a new last layer for the classes",
    source="Radford et al. 2016, section 5.1 (discriminator features, reused)",
)
class TrunkClassifier(Classifier):
    """``trunk`` is the discriminator with an identity for its head, so it has all of the discriminator's
    weights under the same names but those of the head."""

    class Config(StrictModel):
        trunk: str
        """A discriminator's architecture."""
        trunk_config: dict[str, Any] = {}
        """That architecture's own parameters."""
        trunk_classes: int | None = None
        """How many classes a conditional discriminator is asked about."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        own: dict[str, Any] = {"classes": config.trunk_classes, "config": config.trunk_config}
        self.trunk = inner(Discriminator, "trunk", config.trunk, shape=shape, **own)
        self.trunk.head = nn.Identity()
        self.head = self.trunk.new_head(self.classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, feature_dim), what the discriminator's last layer would see."""
        return self.trunk.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


@architecture(
    "encoder-classifier",
    role="classifier",
    summary="a VAE without its decoder, and a linear layer from what it encodes to the classes",
    source="Kingma et al. 2014 (M1: latent features under a classifier)",
)
class EncoderClassifier(Classifier):
    """``encoder`` is the VAE with an identity for its decoder, so it has the VAE's weights under the same
    names but those of the decoder."""

    class Config(StrictModel):
        encoder: str
        """A VAE's architecture."""
        encoder_config: dict[str, Any] = {}
        """That architecture's own parameters."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        own: dict[str, Any] = {"shape": shape, "config": config.encoder_config}
        self.encoder = inner(Vae, "encoder", config.encoder, **own)  # type: ignore[type-abstract]
        self.head = nn.Linear(2 * self.encoder.decoder.latent_dim, self.classes)
        self.encoder.decoder = nn.Identity()  # type: ignore[assignment]

    def features(self, x: Tensor) -> Tensor:
        """(N, 2 latent_dim): means of the latent vectors, and logarithms of their variances."""
        return torch.cat(self.encoder.encode(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


@architecture(
    "detector",
    role="detector",
    summary="a classifier's network with two outputs, whose difference detects adversarial examples",
    source="Metzen et al., ICLR 2017; Gong et al. 2017 (binary classifiers as detectors)",
)
class Detector(Network):
    """Images (N, C, H, W) to scores (N,): the larger, the rather adversarial; 0 where both are as likely."""

    class Config(StrictModel):
        network: str = "small-cnn"
        """A classifier's architecture; trunk-classifier for one that begins as a GAN's discriminator."""
        network_config: dict[str, Any] = {}
        """That architecture's own parameters."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        own: dict[str, Any] = {"classes": 2, "config": config.network_config}
        self.network = inner(Classifier, "network", config.network, shape=shape, **own)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) of images in [0, 1]."""
        logits: Tensor = self.network(x)
        return logits[:, 1] - logits[:, 0]
