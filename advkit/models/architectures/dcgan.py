"""Deep convolutional GAN for images of any size from 8x8: 4x4 convolutions of stride 2, batch norm.

The generator starts at 4x4 (at up to 7x7, for sizes that are no power of two) and doubles until the image is
whole, halving its channels each time; the discriminator is its mirror image. Both work on pixels in [-1, 1]
inside.
"""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field
from torch import nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.layers import Size, growth, refuse_small
from advkit.models.network import Discriminator, Generator, architecture

DEVIATION = 0.02
"""Standard deviation that weights start with."""


def _start(network: nn.Module) -> None:
    """Weights from N(0, .02), batch norm's from N(1, .02), zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0, DEVIATION)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, DEVIATION)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _kernel(large: Size, small: Size) -> Size:
    """4x4 between a size and its half; 3 along a side that is odd, where 4 would need another padding."""
    return 4 - (2 * small[0] - large[0]), 4 - (2 * small[1] - large[1])


@architecture(
    "dcgan-generator",
    role="generator",
    summary="transposed 4x4 convolutions from 4x4 up, as many as the size needs; batch norm, ReLU, tanh",
    source="Radford et al., ICLR 2016",
)
class DCGenerator(Generator):
    """With width 128 on 64x64 colour images it has the channels of the paper: 1024, 512, 256, 128."""

    class Config(Generator.Config):
        width: int = Field(64, ge=1)
        """Channels before the last layer; each size below has twice as many (the paper: 128)."""

    config: Config
    signed = True

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        refuse_small(shape)
        super().__init__(config, shape=shape)
        sizes = growth(shape)
        channels = [config.width << step for step in reversed(range(len(sizes) - 1))]
        layers: list[nn.Module] = [
            nn.Linear(config.latent_dim, channels[0] * math.prod(sizes[0]), bias=False),
            nn.Unflatten(1, (channels[0], *sizes[0])),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        ]
        steps = pairwise(sizes)
        for (inputs, outputs), (before, after) in zip(pairwise(channels), steps, strict=False):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, _kernel(after, before), 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        last = nn.ConvTranspose2d(channels[-1], shape[0], _kernel(sizes[-1], sizes[-2]), 2, 1)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())
        _start(self)


@architecture(
    "dcgan-discriminator",
    role="discriminator",
    summary="strided 4x4 convolutions down to 4x4, then a dense layer; batch norm, leaky ReLU",
    source="Radford et al., ICLR 2016",
)
class DCDiscriminator(Discriminator):
    """Mirror image of the generator; no batch norm on its first layer."""

    class Config(StrictModel):
        width: int = Field(64, ge=1)
        """Channels of the first convolution; each next one has twice as many (the paper: 128)."""
        slope: float = Field(0.2, ge=0, lt=1)
        """Of the leaky ReLU, below zero."""

    config: Config
    signed = True

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        refuse_small(shape)
        super().__init__(config, shape=shape)
        sizes = growth(shape)
        layers: list[nn.Module] = []
        inputs, outputs = shape[0], config.width
        for large, small in pairwise(reversed(sizes)):
            first = not layers
            layers.append(nn.Conv2d(inputs, outputs, _kernel(large, small), 2, 1, bias=first))
            layers += [] if first else [nn.BatchNorm2d(outputs)]
            layers.append(nn.LeakyReLU(config.slope))
            inputs, outputs = outputs, 2 * outputs
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.feature_dim = inputs * math.prod(sizes[0])
        self.head = nn.Linear(self.feature_dim, 1)
        _start(self)
