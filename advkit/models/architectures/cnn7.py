"""The network on which certified training is compared."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.architectures.strided_cnn import normalised
from advkit.models.card import Shape
from advkit.models.initialise import for_intervals
from advkit.models.network import Classifier, architecture


@architecture(
    "cnn7",
    role="classifier",
    summary="five 3x3 convolutions (64, 64, then 128 with one stride of 2), dense 512, all with batch norm",
    source="Shi et al., Fast Certified Robust Training with Short Warmup, NeurIPS 2021",
)
class CNN7(Classifier):
    """On 28x28 grey images: 13,258,314 parameters; for a GPU. `strided-cnn` is what a CPU has time for."""

    class Config(StrictModel):
        """Parameters."""

        width: int = Field(64, ge=1)
        """Channels of the first two convolutions; the others have twice as many, the dense layer eight
        times."""

    config: Config
    least = 2

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        w = config.width
        high, wide = ((side + 1) // 2 for side in (height, width))
        self.layers = nn.Sequential(
            *normalised(nn.Conv2d(channels, w, 3, padding=1, bias=False)),
            *normalised(nn.Conv2d(w, w, 3, padding=1, bias=False)),
            *normalised(nn.Conv2d(w, 2 * w, 3, stride=2, padding=1, bias=False)),
            *normalised(nn.Conv2d(2 * w, 2 * w, 3, padding=1, bias=False)),
            *normalised(nn.Conv2d(2 * w, 2 * w, 3, padding=1, bias=False)),
            nn.Flatten(),
            *normalised(nn.Linear(2 * w * high * wide, 8 * w, bias=False)),
            nn.Linear(8 * w, self.classes),
        )
        for_intervals(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits
