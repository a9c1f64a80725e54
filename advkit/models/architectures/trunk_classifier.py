"""A discriminator's features under a head for the classes."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES, Classifier, Discriminator, architecture, build


@architecture(
    "trunk-classifier",
    role="classifier",
    summary="a discriminator with a new last layer for the classes",
    source="Radford et al. 2016, section 5.1 (discriminator features, reused)",
)
class TrunkClassifier(Classifier):
    """``trunk`` is the discriminator with an identity for its head, so it has all of the discriminator's
    weights under the same names but those of the head."""

    class Config(StrictModel):
        """Parameters."""

        trunk: str
        """A discriminator's architecture."""
        trunk_config: dict[str, Any] = {}
        """That architecture's own parameters."""
        trunk_classes: int | None = None
        """How many classes a conditional discriminator is asked about."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        entry = ARCHITECTURES.entry(config.trunk)
        if entry.facts["role"] != "discriminator":
            raise ConfigError(
                f"the trunk {config.trunk!r} is a {entry.facts['role']}; name a discriminator's architecture"
            )
        trunk = build(config.trunk, shape=shape, classes=config.trunk_classes, config=config.trunk_config)
        self.trunk = cast(Discriminator, trunk)
        self.trunk.head = nn.Identity()
        self.head = self.trunk.new_head(self.classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, feature_dim), what the discriminator's last layer would see."""
        return self.trunk.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits
