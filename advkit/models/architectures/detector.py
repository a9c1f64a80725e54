"""A detector of adversarial images: any classifier's network with two classes, and their logit difference."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES, Classifier, Network, architecture, build


@architecture(
    "detector",
    role="detector",
    summary="a classifier's network with two outputs, whose difference detects adversarial examples",
    source="Metzen et al., ICLR 2017; Gong et al. 2017 (binary classifiers as detectors)",
)
class Detector(Network):
    """Images (N, C, H, W) to scores (N,): the larger, the rather adversarial; 0 where both are as likely."""

    class Config(StrictModel):
        """Parameters."""

        network: str = "small-cnn"
        """A classifier's architecture; trunk-classifier for one that begins as a GAN's discriminator."""
        network_config: dict[str, Any] = {}
        """That architecture's own parameters."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        entry = ARCHITECTURES.entry(config.network)
        if entry.facts["role"] != "classifier":
            raise ConfigError(
                f"the network {config.network!r} is a {entry.facts['role']}; name a classifier's architecture"
            )
        made = build(config.network, shape=shape, classes=2, config=config.network_config)
        self.network = cast(Classifier, made)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) of images in [0, 1]."""
        logits: Tensor = self.network(x)
        return logits[:, 1] - logits[:, 0]
