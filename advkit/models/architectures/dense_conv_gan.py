"""Small GAN of the textbooks: a generator of transposed convolutions against a dense discriminator.

Both work on pixels in [-1, 1] inside.
"""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.initialise import glorot
from advkit.models.network import Discriminator, Generator, architecture
from advkit.models.sizes import growth, transposed


@architecture(
    "dense-conv-gan-generator",
    role="generator",
    summary="dense, then two transposed 5x5 convolutions to full size; ReLU, tanh, no batch norm",
    source="Goodfellow et al. 2014, with the generator of Radford et al. 2016 in small",
)
class DenseConvGenerator(Generator):
    """On 28x28 grey images: 839,937 parameters, from 7x7."""

    class Config(StrictModel):
        """Parameters."""

        latent_dim: int = Field(100, ge=1)
        """Numbers in a latent vector."""
        channels: tuple[int, int] = (128, 64)
        """After the dense layer and after the first transposed convolution."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.latent_dim = config.latent_dim
        wide, narrow = config.channels
        start, middle, whole = growth(shape, 2)
        self.layers = nn.Sequential(
            nn.Linear(config.latent_dim, wide * math.prod(start)),
            nn.ReLU(),
            nn.Unflatten(1, (wide, *start)),
            transposed(wide, narrow, 5, start, middle),
            nn.ReLU(),
            transposed(narrow, shape[0], 5, middle, whole),
            nn.Tanh(),
        )
        glorot(self)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1]."""
        images: Tensor = self.layers(z)
        return (images + 1) / 2


@architecture(
    "dense-conv-gan-discriminator",
    role="discriminator",
    summary="one dense layer with ReLU on the pixels",
    source="Goodfellow et al. 2014",
)
class ShallowDiscriminator(Discriminator):
    """On 28x28 grey images: 100,609 parameters."""

    class Config(StrictModel):
        """Parameters."""

        hidden: int = Field(128, ge=1)
        """Width of the hidden layer."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.feature_dim = config.hidden
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), config.hidden), nn.ReLU())
        self.head = nn.Linear(config.hidden, 1)
        glorot(self)

    def features(self, x: Tensor) -> Tensor:
        """Output of the hidden layer."""
        features: Tensor = self.trunk(2 * x - 1)
        return features
