"""The small network of provable defences."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture


@architecture(
    "small-cnn",
    role="classifier",
    summary="two strided 4x4 convolutions (16, 32), dense 100; small enough to verify",
    source="Wong and Kolter, Provable Defenses against Adversarial Examples, ICML 2018",
    aliases=("cnn-a",),
)
class SmallCNN(Classifier):
    """On 28x28 grey images: 166,406 parameters."""

    least = 4

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100),
            nn.ReLU(),
            nn.Linear(100, self.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits
