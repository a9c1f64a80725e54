"""Residual GAN without normalisation, in the manner of R3GAN.

Both networks are stacks of one block, an inverted bottleneck: 1x1 convolution to twice the channels, grouped
3x3 convolution, 1x1 convolution back, added to what came in. Where others normalise, the weights start so
that nothing need be: every branch begins near zero, and its other layers smaller the more blocks there are
(Zhang et al. 2019, "Fixup"). Sizes change between blocks by interpolation. The generator starts from learned
pictures, weighted by its latent vector, and the discriminator ends by weighing its last channels with learned
pictures. Both work on pixels in [-1, 1] inside, and can be differentiated twice, as R1 and R2 ask.

Channels double where the size is halved; R3GAN has them equal. On MNIST (batches of 64, relativistic loss, R1
and R2 with gamma .25, rate 5e-4) strokes like those of digits are there after 500 steps, and the first digits
after 600. Without the blocks at full size a step takes half the time, but in two trials of 200 and 300 steps
the discriminator won every time.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.layers import Size, growth, refuse_small
from advkit.models.network import Discriminator, Generator, architecture

SLOPE = 0.2
"""Of the leaky ReLU, below zero."""
GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""What makes up for the variance that a leaky ReLU takes (He et al. 2015)."""
LAST = 0.01
"""Gain that the last layer of a branch starts with: nearly none, but gradients reach the layers before it."""


class _Scale(StrictModel):
    """How large the networks are; both ends of the game have the same parameters."""

    width: int = Field(16, ge=1)
    """Channels at full size; doubled each time the size is halved."""
    depth: int = Field(1, ge=1)
    """Residual blocks at each size."""
    group: int = Field(16, ge=1)
    """Channels that a 3x3 convolution mixes; it has to divide twice the width."""


def _started(layer: nn.Conv2d | nn.Linear, gain: float) -> nn.Module:
    """``layer`` with weights from N(0, gain² / fan in) and zero biases."""
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _pointwise(inputs: int, outputs: int, gain: float = 1, *, bias: bool = False) -> nn.Module:
    return _started(nn.Conv2d(inputs, outputs, 1, bias=bias), gain)


class _Block(nn.Module):
    """(N, width, H, W) to the same, one of ``blocks``."""

    def __init__(self, width: int, group: int, blocks: int) -> None:
        super().__init__()
        inner = 2 * width
        gain = GAIN * blocks**-0.25  # Fixup's exponent, -1 / (2m - 2), for branches of m = 3 layers
        mixing = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group)
        self.branch = nn.Sequential(
            _pointwise(width, inner, gain, bias=True),
            nn.LeakyReLU(SLOPE),
            _started(mixing, gain),
            nn.LeakyReLU(SLOPE),
            _pointwise(inner, width, LAST),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class _Up(nn.Module):
    """To ``size``, by bilinear interpolation, with half the channels (first, since that is cheaper)."""

    def __init__(self, inputs: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.narrow = _pointwise(inputs, inputs // 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.narrow(x), self.size, mode="bilinear")


class _Down(nn.Module):
    """To half the size, rounded up, by averaging, with twice the channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.widen = _pointwise(inputs, 2 * inputs)

    def forward(self, x: Tensor) -> Tensor:
        small = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        out: Tensor = self.widen(small)
        return out


def _plan(config: _Scale, shape: Shape) -> tuple[list[Size], list[int], int]:
    """Sizes from the smallest, their channels, and how many blocks there are in all."""
    refuse_small(shape)
    if 2 * config.width % config.group:
        raise ConfigError(
            f"group {config.group} does not divide twice the width ({2 * config.width}); "
            f"take group={2 * config.width}, or a width that it divides"
        )
    sizes = growth(shape)
    return sizes, [config.width << step for step in reversed(range(len(sizes)))], config.depth * len(sizes)


@architecture(
    "residual-gan-generator",
    role="generator",
    summary="residual blocks with grouped convolutions from learned 4x4 pictures up; leaky ReLU, tanh",
    source="Huang et al., NeurIPS 2024 (R3GAN)",
)
class ResidualGenerator(Generator):
    """Latent vectors choose among learned pictures of the smallest size."""

    class Config(_Scale, Generator.Config):
        latent_dim: int = Field(64, ge=1)
        """Numbers in a latent vector."""

    config: Config
    signed = True

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        sizes, channels, blocks = _plan(config, shape)
        super().__init__(config, shape=shape)
        self.choose = _started(nn.Linear(config.latent_dim, channels[0], bias=False), 1)
        self.pictures = nn.Parameter(torch.randn(1, channels[0], *sizes[0]))
        layers: list[nn.Module] = []
        for width, size in zip(channels, sizes, strict=True):
            layers += [_Up(2 * width, size)] if layers else []
            layers += [_Block(width, config.group, blocks) for _ in range(config.depth)]
        self.layers = nn.Sequential(*layers, _pointwise(channels[-1], shape[0], bias=True), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1]."""
        weights: Tensor = self.choose(z)
        return super().forward(weights[:, :, None, None] * self.pictures)


@architecture(
    "residual-gan-discriminator",
    role="discriminator",
    summary="residual blocks with grouped convolutions down to 4x4, weighed by learned pictures; leaky ReLU",
    source="Huang et al., NeurIPS 2024 (R3GAN)",
)
class ResidualDiscriminator(Discriminator):
    """Mirror image of the generator."""

    Config = _Scale

    config: _Scale

    def __init__(self, config: _Scale, *, shape: Shape, classes: int | None = None) -> None:
        sizes, channels, blocks = _plan(config, shape)
        super().__init__(config, shape=shape)
        layers: list[nn.Module] = [_pointwise(shape[0], channels[-1], bias=True)]
        for width in reversed(channels):
            layers += [_Down(width // 2)] if len(layers) > 1 else []
            layers += [_Block(width, config.group, blocks) for _ in range(config.depth)]
        self.layers = nn.Sequential(*layers)
        self.feature_dim = channels[0]
        self.pictures = nn.Parameter(torch.randn(1, channels[0], *sizes[0]) / math.sqrt(math.prod(sizes[0])))
        self.head = _started(nn.Linear(self.feature_dim, 1), 1)

    def features(self, x: Tensor) -> Tensor:
        """How much each channel looks like its learned picture."""
        last: Tensor = self.layers(2 * x - 1)
        return (last * self.pictures).sum((2, 3))
