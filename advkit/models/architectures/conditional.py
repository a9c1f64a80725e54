"""Generators and discriminators conditioned on the class, around any unconditional one."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel, validate
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.labels import need_classes, need_labels
from advkit.models.network import ARCHITECTURES, Discriminator, Generator, architecture, inner


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
        generator: str = "conv-gan-generator"
        """A generator's architecture."""
        generator_config: dict[str, Any] = {}
        """That architecture's own parameters; ``latent_dim`` does not count the class."""
        embedding: int = Field(50, ge=1)
        """Size of the class embedding."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=need_classes(classes))
        kind = ARCHITECTURES.get(config.generator).Config
        if "latent_dim" not in kind.model_fields:
            raise ConfigError(
                f"{config.generator!r} has no parameter latent_dim; name a generator's architecture that has "
                "it"
            )
        own = validate(kind, config.generator_config, f"architecture {config.generator!r}")
        self.latent_dim = own.model_dump()["latent_dim"]
        longer = {**config.generator_config, "latent_dim": self.latent_dim + config.embedding}
        self.generator = inner(Generator, "generator", config.generator, shape=shape, config=longer)
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


class _Wrapped(Discriminator):
    """A discriminator's features and head, the first as ``trunk``, under the names that they have there."""

    classes: int
    trunk: Discriminator

    class Config(StrictModel):
        trunk: str = "conv-gan-discriminator"
        """A discriminator's architecture."""
        trunk_config: dict[str, Any] = {}
        """That architecture's own parameters."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=need_classes(classes))
        if issubclass(ARCHITECTURES.get(config.trunk), _Wrapped):
            raise ConfigError(
                f"the trunk {config.trunk!r} is itself conditional; name an unconditional discriminator's "
                "architecture"
            )
        self.trunk = inner(Discriminator, "trunk", config.trunk, shape=shape, config=config.trunk_config)
        self.head, self.trunk.head = self.trunk.head, nn.Identity()
        self.feature_dim = self.trunk.feature_dim

    def features(self, x: Tensor) -> Tensor:
        """The trunk's."""
        return self.trunk.features(x)


@architecture(
    "projection-discriminator",
    role="discriminator",
    summary="any discriminator, plus the inner product of its features and a class embedding (projection)",
    source="Miyato and Koyama, ICLR 2018",
)
class ProjectionDiscriminator(_Wrapped):
    """Says whether an image is a real one of its class.

    Raises:
        ConfigError: the number of classes is missing, or the trunk is not an unconditional discriminator.
    """

    def __init__(self, config: _Wrapped.Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        self.embedding = nn.Embedding(self.classes, self.feature_dim)  # last: its rows tell the classes
        nn.init.normal_(self.embedding.weight, 0, self.feature_dim**-0.5)  # as large as the head's weights

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (N,) of images (N, C, H, W) in [0, 1] being real ones of the classes (N,).

        Raises:
            DataError: labels that are missing or not of these classes.
        """
        which = self.embedding(need_labels(labels, len(x), self.classes))
        features = self.features(x)
        logits: Tensor = self.head(features).squeeze(1) + (which * features).sum(1)
        return logits


@architecture(
    "auxiliary-discriminator",
    role="discriminator",
    summary="any discriminator, with an auxiliary classifier head",
    source="Odena et al., ICML 2017 (AC-GAN)",
)
class AuxiliaryDiscriminator(_Wrapped):
    """Says whether an image is real, whatever its class, and which class it shows.

    Raises:
        ConfigError: the number of classes is missing, or the trunk is not an unconditional discriminator.
    """

    def __init__(self, config: _Wrapped.Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        self.classifier = nn.Linear(self.feature_dim, self.classes)  # last: its outputs tell the classes

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (N,) of being real; classes have no say in them, but wrong ones are refused.

        Raises:
            DataError: labels that are not of these classes.
        """
        if labels is not None:
            need_labels(labels, len(x), self.classes)
        return super().forward(x)

    def classify(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of the classes."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` and `classify` say, from one pass through the trunk."""
        features = self.features(x)
        return self.head(features).squeeze(1), self.classifier(features)
