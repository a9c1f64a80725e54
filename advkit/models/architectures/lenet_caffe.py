"""LeNet with 5x5 convolutions, on which the literature of randomised smoothing reports MNIST."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.network import Classifier, architecture

UNPADDED = 16
"""Pixels a side from which on convolutions have no padding, as in the original."""


@architecture(
    "lenet-caffe",
    role="classifier",
    summary="two 5x5 convolutions (20, 50) with max pooling, dense 500",
    source="LeCun et al. 1998, in the form of Caffe's example; in Jeong and Shin, NeurIPS 2020",
)
class LeNetCaffe(Classifier):
    """On 28x28 grey images: 431,080 parameters."""

    least = 4

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        channels, height, width = shape
        padding = 0 if min(height, width) >= UNPADDED else 2  # else nothing would be left of the image
        self.conv1 = nn.Conv2d(channels, 20, 5, padding=padding)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=padding)
        rows, columns = (_left(_left(side, padding), padding) for side in (height, width))
        self.linear1 = nn.Linear(50 * rows * columns, 500)
        self.linear2 = nn.Linear(500, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        logits: Tensor = self.linear2(F.relu(self.linear1(x.flatten(1))))
        return logits


def _left(side: int, padding: int) -> int:
    """Pixels a side behind a convolution and its pooling."""
    return (side + 2 * padding - 4) // 2
