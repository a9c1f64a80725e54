"""GANs of semi-supervised training, whose discriminators add noise before every layer.

Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 5.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.architectures.small_gans import UniformGenerator
from advkit.models.card import Shape
from advkit.models.layers import NormalisedConv2d, NormalisedLinear, glorot
from advkit.models.network import Discriminator, architecture


class Noise(nn.Module):
    """Adds N(0, deviation^2) in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself in eval mode."""
        return torch.add(x, torch.randn_like(x), alpha=self.deviation) if self.training else x


class NoisyDiscriminator(Discriminator):
    """A ``trunk`` whose output is the features, under a weight-normalised head."""

    class Config(StrictModel):
        input_noise: float = Field(0.3, ge=0)
        """Standard deviation of the noise on pixels."""
        noise: float = Field(0.5, ge=0)
        """Standard deviation of the noise on inputs of dense layers behind it, which begin near 1."""

    config: Config

    def new_head(self, outputs: int) -> nn.Module:
        """A weight-normalised layer under noise, too."""
        return nn.Sequential(
            Noise(self.config.noise), NormalisedLinear(self.feature_dim, outputs, fixed=False)
        )


_MNIST = "Salimans et al. 2016, section 5.1 (MNIST)"


@architecture(
    "noisy-mlp-generator",
    role="generator",
    summary="two dense layers with batch norm and softplus, sigmoid; latent uniform in [0, 1)",
    source=_MNIST,
)
class NoisyMlpGenerator(UniformGenerator):
    """On 28x28 grey images: 696,568 parameters."""

    class Config(UniformGenerator.Config):
        hidden: tuple[int, ...] = Field((500, 500), min_length=1)
        """Widths of the hidden layers."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
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


@architecture(
    "noisy-mlp-discriminator",
    role="discriminator",
    summary="weight-normalised dense layers with ReLU, and Gaussian noise before each",
    source=_MNIST,
)
class NoisyMlpDiscriminator(NoisyDiscriminator):
    """Features are the last hidden layer before its noise. On 28x28 grey images: 1,536,502 parameters."""

    class Config(NoisyDiscriminator.Config):
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


_CIFAR = "Salimans et al. 2016, section 5.2 (CIFAR-10), in small"


@architecture(
    "noisy-conv-generator",
    role="generator",
    summary="two dense layers with batch norm and softplus, sigmoid; latent uniform in [0, 1)",
    source=_CIFAR,
)
class NoisyConvGenerator(NoisyMlpGenerator):
    """That of noisy-mlp, which costs a tenth of a convolutional one."""


@architecture(
    "noisy-conv-discriminator",
    role="discriminator",
    summary="noise on the pixels, three strided weight-normalised convolutions, a dense layer",
    source=_CIFAR,
)
class NoisyConvDiscriminator(NoisyDiscriminator):
    """Features are the dense layer. On 28x28 grey images: 154,882 parameters."""

    class Config(NoisyDiscriminator.Config):
        channels: tuple[int, int, int] = (16, 32, 64)
        """Of the three convolutions, 5x5 and twice 3x3."""
        features: int = Field(128, ge=1)
        """Width of the dense layer."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        colours, height, width = shape
        first, second, third = config.channels
        size = [-(-side // 8) for side in (height, width)]
        self.trunk = nn.Sequential(
            Noise(config.input_noise),
            NormalisedConv2d(colours, first, 5, 2),
            nn.LeakyReLU(0.2),
            NormalisedConv2d(first, second, 3, 2),
            nn.LeakyReLU(0.2),
            NormalisedConv2d(second, third, 3, 2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            Noise(config.noise),
            NormalisedLinear(third * size[0] * size[1], config.features, fixed=True),
            nn.LeakyReLU(0.2),
        )
        self.feature_dim = config.features
        self.head = self.new_head(1)
