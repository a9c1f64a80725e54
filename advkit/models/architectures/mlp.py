"""Dense classifier."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture


@architecture("mlp", role="classifier", summary="dense layers with ReLU on the flattened image")
class MLP(Classifier):
    """With no hidden layers it is linear, which has its uses in checking attacks."""

    class Config(StrictModel):
        hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256, 256)
        """Widths of the hidden layers; none for a linear classifier."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(shape)
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits
