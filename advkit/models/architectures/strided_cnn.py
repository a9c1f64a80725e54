"""A network for certified training, small enough for a CPU."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.initialise import for_intervals
from advkit.models.network import Classifier, architecture


@architecture(
    "strided-cnn",
    role="classifier",
    summary="5x5 and 4x4 convolutions of stride 2 (32, 64), a 3x3 one (64), dense 256, all with batch norm",
    source="batch norm as in Shi et al., Fast Certified Robust Training with Short Warmup, NeurIPS 2021",
)
class StridedCNN(Classifier):
    """On 28x28 grey images: 876,650 parameters, and a seventh of the cost of that paper's seven layers at
    equal width, since the first convolution has already a stride. Batch norm, and small weights at first,
    keep intervals from exploding with depth."""

    class Config(StrictModel):
        """Parameters."""

        width: int = Field(32, ge=1)
        """Channels of the first convolution; the others have twice as many, the dense layer eight times."""

    config: Config
    least = 4

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        w = config.width
        high, wide = (((side + 1) // 2) // 2 for side in (height, width))
        self.layers = nn.Sequential(
            *normalised(nn.Conv2d(channels, w, 5, stride=2, padding=2, bias=False)),
            *normalised(nn.Conv2d(w, 2 * w, 4, stride=2, padding=1, bias=False)),
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


def normalised(layer: nn.Conv2d | nn.Linear) -> tuple[nn.Module, ...]:
    """A layer, its batch norm and ReLU."""
    if isinstance(layer, nn.Conv2d):
        return layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()
    return layer, nn.BatchNorm1d(layer.out_features), nn.ReLU()
