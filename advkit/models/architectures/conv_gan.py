"""Convolutional GAN with a critic: transposed 5x5 convolutions up, strided 5x5 convolutions down.

On small images (`SMALL` pixels and less) a quarter of the size would be 2x2 or 3x3, under kernels that are
wider than that, and the generator settles on the mean image: on the 8x8 digits its samples differ 4 % as
much as real ones after 1,000 steps. There it starts at half of the size, with 3x3 kernels and half the
channels, and its last layer starts `GAIN` times as large, so that its first images differ from one another;
after 1,000 steps its samples then differ as much as the digits do. In single trials of 250 to 750 steps
each, leaving out any one of the three was slower or failed. The critic is the same at every size.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.layers import glorot, transposed
from advkit.models.network import Discriminator, Generator, architecture

SMALL = 12
"""Shorter side, in pixels, up to which images are small."""
GAIN = 4.0
"""How much wider than Glorot's the last layer starts on small images."""


def _half(size: int) -> int:
    return (size + 1) // 2


@architecture(
    "conv-gan-generator",
    role="generator",
    summary="dense, then transposed 5x5 convolutions to full size; batch norm, ReLU, sigmoid",
    source="Radford et al. 2016, in small",
)
class ConvGenerator(Generator):
    """On 28x28 grey images: 2,343,681 parameters with batch norm's running statistics."""

    class Config(Generator.Config):
        channels: tuple[int, int, int] | None = None
        """After the dense layer and the next two; by default 256,128,64, on small images 128,64,32."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        small = min(shape[1:]) <= SMALL
        wide, middle, narrow = config.channels or ((128, 64, 32) if small else (256, 128, 64))
        colours, height, width = shape
        half = (_half(height), _half(width))
        start = half if small else (_half(half[0]), _half(half[1]))
        dense = wide * start[0] * start[1]
        kernel = 3 if small else 5

        last = transposed(narrow, colours, kernel, half, (height, width))
        self.layers = nn.Sequential(
            nn.Linear(config.latent_dim, dense),
            nn.BatchNorm1d(dense),
            nn.ReLU(),
            nn.Unflatten(1, (wide, *start)),
            transposed(wide, middle, kernel, start, start),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            transposed(middle, narrow, kernel, start, half),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            last,
            nn.Sigmoid(),
        )
        glorot(self)
        if small:
            nn.init.xavier_uniform_(last.weight, GAIN)


@architecture(
    "conv-gan-discriminator",
    role="discriminator",
    summary="two strided 5x5 convolutions with ReLU and dropout, then a dense layer",
    source="Radford et al. 2016, in small",
    aliases=("conv-gan-critic",),
)
class ConvDiscriminator(Discriminator):
    """On 28x28 grey images: 212,865 parameters."""

    class Config(StrictModel):
        channels: tuple[int, int] = (64, 128)
        """Of the two convolutions."""
        dropout: float = Field(0.3, ge=0, lt=1)
        """Share of each convolution's outputs that is dropped in training."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        first, second = config.channels
        colours, height, width = shape
        self.trunk = nn.Sequential(
            nn.Conv2d(colours, first, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Conv2d(first, second, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Flatten(),
        )
        self.feature_dim = second * _half(_half(height)) * _half(_half(width))
        self.head = nn.Linear(self.feature_dim, 1)
        glorot(self)
