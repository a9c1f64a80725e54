"""Dense GAN: the networks of the textbooks."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.initialise import glorot
from advkit.models.network import Discriminator, Generator, architecture


@architecture(
    "mlp-gan-generator",
    role="generator",
    summary="dense layers with ReLU, batch norm and dropout, sigmoid; latent uniform in [0, 1)",
    source="Goodfellow et al. 2014, with batch norm and dropout",
)
class DenseGenerator(Generator):
    """Latent vectors are uniform in [0, 1)."""

    class Config(StrictModel):
        """Parameters."""

        latent_dim: int = Field(100, ge=1)
        """Numbers in a latent vector."""
        hidden: tuple[int, ...] = Field((256, 512, 1024), min_length=1)
        """Widths of the hidden layers."""
        dropout: float = Field(0.5, ge=0, lt=1)
        """Share of the last hidden layer that is dropped in training."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.latent_dim = config.latent_dim
        layers: list[nn.Module] = []
        width = config.latent_dim
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)]
            width = hidden
        layers += [nn.Dropout(config.dropout), nn.Linear(width, math.prod(shape)), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers, nn.Unflatten(1, shape))
        glorot(self)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1]."""
        images: Tensor = self.layers(z)
        return images

    def draw(self, key: Tensor) -> Tensor:
        """Latent vectors, uniform in [0, 1)."""
        return rng.uniform(key, (self.latent_dim,))


@architecture(
    "mlp-gan-discriminator",
    role="discriminator",
    summary="dropout on the pixels, then dense layers with ReLU",
    source="Goodfellow et al. 2014, with batch norm and dropout",
)
class DenseDiscriminator(Discriminator):
    """The sigmoid of the original is part of the loss, so the output is a logit."""

    class Config(StrictModel):
        """Parameters."""

        hidden: tuple[int, ...] = Field((512, 256), min_length=1)
        """Widths of the hidden layers."""
        dropout: float = Field(0.5, ge=0, lt=1)
        """Share of the pixels that are dropped in training."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(config.dropout)]
        width = math.prod(shape)
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.trunk = nn.Sequential(*layers)
        self.feature_dim = width
        self.head = nn.Linear(width, 1)
        glorot(self)

    def features(self, x: Tensor) -> Tensor:
        """Output of the last hidden layer."""
        features: Tensor = self.trunk(x)
        return features
