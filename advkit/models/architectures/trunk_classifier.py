"""A discriminator's features under a linear head."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from advkit.config import StrictModel
from advkit.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES, Classifier, Discriminator, architecture, build


@architecture(
    "trunk-classifier",
    role="classifier",
    summary="a discriminator without its last layer, and a linear layer to the classes",
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

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        entry = ARCHITECTURES.entry(config.trunk)
        if entry.facts["role"] != "discriminator":
            raise ConfigError(
                f"the trunk {config.trunk!r} is a {entry.facts['role']}; name a discriminator's architecture"
            )
        self.trunk = cast(Discriminator, build(config.trunk, shape=shape, config=config.trunk_config))
        self.trunk.head = nn.Identity()
        self.head = nn.Linear(self.trunk.feature_dim, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.trunk.features(x))
        return logits
