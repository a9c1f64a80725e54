"""A VAE's encoder under a linear head."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES, Classifier, Vae, architecture, build


@architecture(
    "encoder-classifier",
    role="classifier",
    summary="a VAE without its decoder, and a linear layer from what it encodes to the classes",
    source="Kingma et al. 2014 (M1: latent features under a classifier)",
)
class EncoderClassifier(Classifier):
    """``encoder`` is the VAE with an identity for its decoder, so it has the VAE's weights under the same
    names but those of the decoder."""

    class Config(StrictModel):
        """Parameters."""

        encoder: str
        """A VAE's architecture."""
        encoder_config: dict[str, Any] = {}
        """That architecture's own parameters."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        entry = ARCHITECTURES.entry(config.encoder)
        if entry.facts["role"] != "vae":
            raise ConfigError(
                f"the encoder {config.encoder!r} is a {entry.facts['role']}; name a VAE's architecture"
            )
        self.encoder = cast(Vae, build(config.encoder, shape=shape, config=config.encoder_config))
        self.head = nn.Linear(2 * self.encoder.decoder.latent_dim, self.classes)
        self.encoder.decoder = nn.Identity()  # type: ignore[assignment]

    def features(self, x: Tensor) -> Tensor:
        """(N, 2 latent_dim): means of the latent vectors, and logarithms of their variances."""
        return torch.cat(self.encoder.encode(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits
