"""LeNet with 3x3 convolutions, the usual small MNIST classifier."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture


@architecture(
    "lenet",
    role="classifier",
    summary="two 3x3 convolutions (32, 64) with max pooling, dense 200",
    source="LeCun et al. 1998, in the form common for adversarially trained MNIST models",
    aliases=("lenet5",),
)
class LeNet(Classifier):
    """On 28x28 grey images: 648,226 parameters."""

    least = 4

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(64 * (height // 4) * (width // 4), 200)
        self.linear2 = nn.Linear(200, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: Tensor = self.linear2(F.relu(self.linear1(x.flatten(1))))
        return logits
