"""Small GANs of the textbooks."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.layers import Size, glorot, growth, transposed
from advkit.models.network import Discriminator, Generator, architecture


class UniformGenerator(Generator):
    """One whose latent vectors are uniform in [0, 1)."""

    def draw(self, key: Tensor) -> Tensor:
        """Latent vectors (N, latent_dim), one for each key."""
        return rng.uniform(key, (self.latent_dim,))


@architecture(
    "mlp-gan-generator",
    role="generator",
    summary="dense layers with ReLU, batch norm and dropout, sigmoid; latent uniform in [0, 1)",
    source="Goodfellow et al. 2014, with batch norm and dropout",
)
class DenseGenerator(UniformGenerator):
    """On 28x28 grey images: 1,489,936 parameters."""

    class Config(Generator.Config):
        hidden: tuple[int, ...] = Field((256, 512, 1024), min_length=1)
        """Widths of the hidden layers."""
        dropout: float = Field(0.5, ge=0, lt=1)
        """Share of the last hidden layer that is dropped in training."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        layers: list[nn.Module] = []
        width = config.latent_dim
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)]
            width = hidden
        layers += [nn.Dropout(config.dropout), nn.Linear(width, math.prod(shape)), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers, nn.Unflatten(1, shape))
        glorot(self)


@architecture(
    "mlp-gan-discriminator",
    role="discriminator",
    summary="dropout on the pixels, then dense layers with ReLU",
    source="Goodfellow et al. 2014, with batch norm and dropout",
)
class DenseDiscriminator(Discriminator):
    """The sigmoid of the original is part of the loss, so the output is a logit."""

    class Config(StrictModel):
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


@architecture(
    "dense-conv-gan-generator",
    role="generator",
    summary="dense, then two transposed 5x5 convolutions to full size; ReLU, tanh, no batch norm",
    source="Goodfellow et al. 2014, with the generator of Radford et al. 2016 in small",
)
class DenseConvGenerator(Generator):
    """On 28x28 grey images: 839,937 parameters, from 7x7."""

    class Config(Generator.Config):
        channels: tuple[int, int] = (128, 64)
        """After the dense layer and after the first convolution."""

    config: Config
    signed = True

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        wide, narrow = config.channels
        start, middle, whole = growth(shape, 2)
        self.layers = nn.Sequential(
            nn.Linear(config.latent_dim, wide * math.prod(start)),
            nn.ReLU(),
            nn.Unflatten(1, (wide, *start)),
            *self.grow(wide, narrow, start, middle),
            nn.ReLU(),
            *self.grow(narrow, shape[0], middle, whole),
            nn.Tanh(),
        )
        glorot(self)

    @staticmethod
    def grow(inputs: int, outputs: int, before: Size, after: Size) -> list[nn.Module]:
        """Layers that convolve, from one size to the next."""
        return [transposed(inputs, outputs, 5, before, after)]


@architecture(
    "dense-conv-gan-discriminator",
    role="discriminator",
    summary="one dense layer with ReLU on the pixels",
    source="Goodfellow et al. 2014",
)
class ShallowDiscriminator(Discriminator):
    """On 28x28 grey images: 100,609 parameters."""

    class Config(StrictModel):
        hidden: int = Field(128, ge=1)
        """Width of the hidden layer."""

    config: Config
    signed = True

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.feature_dim = config.hidden
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), config.hidden), nn.ReLU())
        self.head = nn.Linear(config.hidden, 1)
        glorot(self)


MOMENTUM = 0.2
"""Of batch norm's running statistics: the weight of the newest batch (Keras' .8 is that of the old ones)."""


@architecture(
    "upsampling-gan-generator",
    role="generator",
    summary="dense, then two blocks of nearest upsampling and a 5x5 convolution; ReLU, tanh",
    source="Radford et al. 2016, in small; upsampling after Odena et al. 2016",
)
class UpsamplingGenerator(DenseConvGenerator):
    """On 28x28 grey images: 839,937 parameters, from 7x7."""

    @staticmethod
    def grow(inputs: int, outputs: int, before: Size, after: Size) -> list[nn.Module]:
        """Nearest upsampling where the size changes, and a convolution."""
        convolution = nn.Conv2d(inputs, outputs, 5, padding=2)
        return [convolution] if before == after else [nn.Upsample(after), convolution]


@architecture(
    "upsampling-gan-discriminator",
    role="discriminator",
    summary="two strided 5x5 convolutions with leaky ReLU, dropout and batch norm, then a dense layer",
    source="Radford et al. 2016, in small",
)
class StridedDiscriminator(Discriminator):
    """On 28x28 grey images: 213,121 parameters."""

    class Config(StrictModel):
        channels: tuple[int, int] = (64, 128)
        """Of the two convolutions."""
        dropout: float = Field(0.3, ge=0, lt=1)
        """Share of each convolution's outputs that is dropped in training."""
        slope: float = Field(0.2, ge=0, lt=1)
        """Of the leaky ReLU, below zero."""

    config: Config
    signed = True

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        first, second = config.channels
        colours, height, width = shape
        self.trunk = nn.Sequential(
            nn.Conv2d(colours, first, 5, stride=2, padding=2),
            nn.LeakyReLU(config.slope),
            nn.Dropout(config.dropout),
            nn.Conv2d(first, second, 5, stride=2, padding=2),
            nn.BatchNorm2d(second, momentum=MOMENTUM),
            nn.LeakyReLU(config.slope),
            nn.Dropout(config.dropout),
            nn.Flatten(),
        )
        self.feature_dim = second * math.ceil(height / 4) * math.ceil(width / 4)
        self.head = nn.Linear(self.feature_dim, 1)
        glorot(self)
