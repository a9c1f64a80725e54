"""Any generator, conditioned on the class to draw."""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel, validate
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.labels import need_classes, need_labels
from advkit.models.network import ARCHITECTURES, Generator, architecture, build


@architecture(
    "conditional-generator",
    role="generator",
    summary="any generator, whose latent vector is concatenated with a learned class embedding",
    source="Mirza and Osindero 2014",
)
class ConditionalGenerator(Generator):
    """Its latent vectors are as long as the wrapped generator's own would be.

    Raises:
        ConfigError: the number of classes is missing, or what is named is no generator or has no
            ``latent_dim``.
    """

    classes: int

    class Config(StrictModel):
        """Parameters."""

        generator: str = "conv-gan-generator"
        """A generator's architecture."""
        generator_config: dict[str, Any] = {}
        """That architecture's own parameters; ``latent_dim`` does not count the class."""
        embedding: int = Field(50, ge=1)
        """Size of the class embedding."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=need_classes(classes))
        entry = ARCHITECTURES.entry(config.generator)
        fields = entry.thing.Config.model_fields
        if entry.facts["role"] != "generator" or "latent_dim" not in fields:
            raise ConfigError(
                f"{config.generator!r} is a {entry.facts['role']} that has "
                f"{'a' if 'latent_dim' in fields else 'no'} parameter latent_dim; name a generator's "
                "architecture that has it"
            )
        own = validate(entry.thing.Config, config.generator_config, f"architecture {config.generator!r}")
        self.latent_dim: int = own.model_dump()["latent_dim"]
        inner = {**config.generator_config, "latent_dim": self.latent_dim + config.embedding}
        self.generator = cast(Generator, build(config.generator, shape=shape, config=inner))
        self.embedding = nn.Embedding(self.classes, config.embedding)  # last: its rows tell the classes
        # Classes begin alike. At the size of the latent vectors the generator would use nothing else, and it
        # draws one image of each.
        nn.init.normal_(self.embedding.weight, 0, 0.1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [0, 1] of latent vectors (N, latent_dim) and classes (N,).

        Raises:
            DataError: labels that are missing or not of these classes.
        """
        which = self.embedding(need_labels(labels, len(z), self.classes))
        images: Tensor = self.generator(torch.cat([z, which], 1))
        return images

    def draw(self, key: Tensor) -> Tensor:
        """Latent vectors from the wrapped generator's prior."""
        return self.generator.draw(key)[:, : self.latent_dim]
