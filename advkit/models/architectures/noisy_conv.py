"""Convolutional discriminator for semi-supervised training, beside the dense generator of noisy-mlp."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from advkit.models.architectures.noisy_mlp import NoisyMlpGenerator
from advkit.models.card import Shape
from advkit.models.network import architecture
from advkit.models.noisy import Noise, NoisyDiscriminator
from advkit.models.normalised import NormalisedConv2d, NormalisedLinear

_SOURCE = "Salimans et al. 2016, section 5.2 (CIFAR-10), in small"


@architecture(
    "noisy-conv-generator",
    role="generator",
    summary="two dense layers with batch norm and softplus, sigmoid; latent uniform in [0, 1)",
    source=_SOURCE,
)
class NoisyConvGenerator(NoisyMlpGenerator):
    """That of noisy-mlp, which costs a tenth of a convolutional one."""


@architecture(
    "noisy-conv-discriminator",
    role="discriminator",
    summary="noise on the pixels, three strided weight-normalised convolutions, a dense layer",
    source=_SOURCE,
)
class NoisyConvDiscriminator(NoisyDiscriminator):
    """Features are the dense layer. On 28x28 grey images: 154,882 parameters."""

    class Config(NoisyDiscriminator.Config):
        """Parameters."""

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
