"""Dense GAN whose discriminator adds noise before every layer: the networks of semi-supervised MNIST."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.initialise import glorot
from advkit.models.network import Generator, architecture
from advkit.models.noisy import Noise, NoisyDiscriminator
from advkit.models.normalised import NormalisedLinear

_SOURCE = "Salimans et al. 2016, section 5.1 (MNIST)"


@architecture(
    "noisy-mlp-generator",
    role="generator",
    summary="two dense layers with batch norm and softplus, sigmoid; latent uniform in [0, 1)",
    source=_SOURCE,
)
class NoisyMlpGenerator(Generator):
    """On 28x28 grey images: 696,568 parameters."""

    class Config(StrictModel):
        """Parameters."""

        latent_dim: int = Field(100, ge=1)
        """Numbers in a latent vector."""
        hidden: tuple[int, ...] = Field((500, 500), min_length=1)
        """Widths of the hidden layers."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.latent_dim = config.latent_dim
        layers: list[nn.Module] = []
        width = config.latent_dim
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.Softplus()]
            width = hidden
        last = NormalisedLinear(width, math.prod(shape), fixed=False)  # a plain one saturates the sigmoid
        with torch.no_grad():  # softplus is positive: what all of its outputs say alike would drown the rest
            last.direction.sub_(last.direction.mean(1, keepdim=True))
        self.layers = nn.Sequential(*layers, last, nn.Sigmoid(), nn.Unflatten(1, shape))
        glorot(self)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1]."""
        images: Tensor = self.layers(z)
        return images

    def draw(self, key: Tensor) -> Tensor:
        """Latent vectors, uniform in [0, 1)."""
        return rng.uniform(key, (self.latent_dim,))


@architecture(
    "noisy-mlp-discriminator",
    role="discriminator",
    summary="weight-normalised dense layers with ReLU, and Gaussian noise before each",
    source=_SOURCE,
)
class NoisyMlpDiscriminator(NoisyDiscriminator):
    """Features are the last hidden layer before its noise. On 28x28 grey images: 1,536,502 parameters."""

    class Config(NoisyDiscriminator.Config):
        """Parameters."""

        hidden: tuple[int, ...] = Field((1000, 500, 250, 250, 250), min_length=1)
        """Widths of the hidden layers."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        layers: list[nn.Module] = [nn.Flatten()]
        width, deviation = math.prod(shape), config.input_noise
        for hidden in config.hidden:
            layers += [Noise(deviation), NormalisedLinear(width, hidden, fixed=True), nn.ReLU()]
            width, deviation = hidden, config.noise
        self.trunk = nn.Sequential(*layers)
        self.feature_dim = width
        self.head = self.new_head(1)
