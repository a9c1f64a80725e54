"""Convolutional GAN with a critic: transposed 5x5 convolutions up, strided 5x5 convolutions down (S6)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from advkit.config import StrictModel
from advkit.models.card import Shape
from advkit.models.initialise import glorot
from advkit.models.network import Discriminator, Generator, architecture


def _half(size: int) -> int:
    return (size + 1) // 2


@architecture(
    "conv-gan-generator",
    role="generator",
    summary="dense, then transposed 5x5 convolutions to full size; batch norm, ReLU, sigmoid",
    source="system S6",
    aliases=("s6-generator",),
)
class ConvGenerator(Generator):
    """On 28x28 grey images: 2,343,681 parameters with batch norm's running statistics."""

    class Config(StrictModel):
        """Parameters."""

        latent_dim: int = Field(100, ge=1)
        channels: tuple[int, int, int] = (256, 128, 64)
        """After the dense layer, at a quarter and at half of the size."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.latent_dim = config.latent_dim
        wide, middle, narrow = config.channels
        colours, height, width = shape
        half = (_half(height), _half(width))
        quarter = (_half(half[0]), _half(half[1]))
        dense = wide * quarter[0] * quarter[1]

        def doubled(inputs: int, outputs: int, small: tuple[int, int], large: tuple[int, int]) -> nn.Module:
            extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)  # 0 or 1: odd or even size
            return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=extra)

        self.layers = nn.Sequential(
            nn.Linear(config.latent_dim, dense),
            nn.BatchNorm1d(dense),
            nn.ReLU(),
            nn.Unflatten(1, (wide, *quarter)),
            nn.ConvTranspose2d(wide, middle, 5, padding=2),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            doubled(middle, narrow, quarter, half),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            doubled(narrow, colours, half, (height, width)),
            nn.Sigmoid(),
        )
        glorot(self)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1]."""
        images: Tensor = self.layers(z)
        return images


@architecture(
    "conv-gan-discriminator",
    role="discriminator",
    summary="two strided 5x5 convolutions with ReLU and dropout, then a dense layer",
    source="system S6",
    aliases=("s6-discriminator", "conv-gan-critic"),
)
class ConvDiscriminator(Discriminator):
    """On 28x28 grey images: 212,865 parameters."""

    class Config(StrictModel):
        """Parameters."""

        channels: tuple[int, int] = (64, 128)
        dropout: float = Field(0.3, ge=0, lt=1)

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

    def features(self, x: Tensor) -> Tensor:
        """Flattened output of the convolutions."""
        features: Tensor = self.trunk(x)
        return features
