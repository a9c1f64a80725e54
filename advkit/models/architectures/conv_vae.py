"""Deep convolutional variational autoencoder, whose decoder is any generator."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.layers import glorot
from advkit.models.network import Generator, Vae, architecture, inner


@architecture(
    "conv-vae",
    role="vae",
    summary="two strided and two further convolutions with batch norm down, any generator up",
    source="Kingma and Welling, ICLR 2014",
)
class ConvVae(Vae):
    """Its decoder is a GAN's generator, so the two are compared with as many parameters.

    The encoder has the strided convolutions of conv-gan's critic, a 3x3 convolution behind each of them, and
    a dense layer: on 28x28 grey images 2,049,544 parameters, where the default decoder has 2,343,681.

    Raises:
        ConfigError: the decoder is no generator, or one whose latent vectors are not drawn from N(0, 1).
    """

    class Config(StrictModel):
        decoder: str = "conv-gan-generator"
        """A generator's architecture; its ``latent_dim`` is the autoencoder's."""
        decoder_config: dict[str, Any] = {}
        """That architecture's own parameters."""
        channels: tuple[int, int] = (64, 128)
        """Of the encoder's convolutions at half and at a quarter of the size."""
        hidden: int = Field(256, ge=1)
        """Width of the encoder's dense layer."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        decoder = inner(Generator, "decoder", config.decoder, shape=shape, config=config.decoder_config)
        if type(decoder).draw is not Generator.draw:
            raise ConfigError(
                f"the decoder {config.decoder!r} draws its latent vectors otherwise than from N(0, 1), which "
                "is what the encoder is trained for; name another generator"
            )
        colours, height, width = shape
        first, second = config.channels
        flat = second * math.ceil(height / 4) * math.ceil(width / 4)
        self.encoder = nn.Sequential(
            *_convolution(colours, first, 5, stride=2),
            *_convolution(first, first, 3, stride=1),
            *_convolution(first, second, 5, stride=2),
            *_convolution(second, second, 3, stride=1),
            nn.Flatten(),
            nn.Linear(flat, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 2 * decoder.latent_dim),
        )
        glorot(self.encoder)
        self.decoder = decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent vectors of images in [0, 1]."""
        mean, log_variance = self.encoder(2 * x - 1).chunk(2, 1)
        return mean, log_variance


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """One layer; batch norm has the bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
