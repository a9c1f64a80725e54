"""The MNIST network of the PGD paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture


@architecture(
    "madry-cnn",
    role="classifier",
    summary="two 5x5 convolutions (32, 64) with max pooling, dense 1024",
    source="Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018",
)
class MadryCNN(Classifier):
    """On 28x28 grey images: 3,274,634 parameters."""

    least = 4

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.linear1 = nn.Linear(64 * (height // 4) * (width // 4), 1024)
        self.linear2 = nn.Linear(1024, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: Tensor = self.linear2(F.relu(self.linear1(x.flatten(1))))
        return logits
