"""The network of the judge, by whose features and predictions generated digits are evaluated."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture

FEATURES = 64
"""Width of the layer before the last: few enough that 1,000 images tell their covariance."""


@architecture(
    "judge-cnn",
    role="classifier",
    summary="four 3x3 convolutions (16, 32, 48, 64) with batch norm and three max poolings, 64 features",
    source="in the manner of Simonyan and Zisserman 2015, in small",
)
class JudgeCNN(Classifier):
    """On 28x28 grey images: 84,618 parameters."""

    least = 8

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        colours, height, width = shape

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            same = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            return [same, nn.BatchNorm2d(outputs), nn.ReLU()]

        self.trunk = nn.Sequential(
            *block(colours, 16),
            nn.MaxPool2d(2),
            *block(16, 32),
            *block(32, 48),
            nn.MaxPool2d(2),
            *block(48, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 8) * (width // 8), FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
        )
        self.head = nn.Linear(FEATURES, self.classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, 64) of images (N, C, H, W) in [0, 1]: the layer before the last, before its ReLU.

        After it a plain grey image, which excites nothing, would lie amid the digits: its precision was 1.
        """
        features: Tensor = self.trunk(x)
        return features

    def answer(self, features: Tensor) -> Tensor:
        """Logits (N, classes) by features (N, 64)."""
        logits: Tensor = self.head(features.relu())
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.answer(self.features(x))
