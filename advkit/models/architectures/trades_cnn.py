"""The MNIST network of TRADES."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import Fraction, StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture


@architecture(
    "trades-cnn",
    role="classifier",
    summary="four 3x3 convolutions (32, 32, 64, 64) without padding, dense 200, 200",
    source="Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019",
)
class TradesCNN(Classifier):
    """On 28x28 grey images: 312,202 parameters. Images of fewer than 16 pixels a side are padded by one in
    each convolution, since nothing would be left of them. The last layer begins as the others do, at random
    (its authors': at 0)."""

    class Config(StrictModel):
        """Parameters."""

        dropout: Fraction = Field(0.5, ge=0, lt=1)
        """Share of the first dense layer's outputs that training leaves out."""

    config: Config
    least = 4

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        pad = 0 if min(height, width) >= 16 else 1
        high, wide = (((side - 4 + 4 * pad) // 2 - 4 + 4 * pad) // 2 for side in (height, width))
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=pad),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=pad),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=pad),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=pad),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * high * wide, 200),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(200, 200),
            nn.ReLU(),
            nn.Linear(200, self.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits
