"""Small classifiers of the literature."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import Fraction, StrictModel
from advkit.models.card import Shape
from advkit.models.layers import for_intervals
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


@architecture(
    "cnn7",
    role="classifier",
    summary="five 3x3 convolutions (64, 64, then 128 with one stride of 2), dense 512, all with batch norm",
    source="Shi et al., Fast Certified Robust Training with Short Warmup, NeurIPS 2021",
)
class CNN7(Classifier):
    """On 28x28 grey images: 13,258,314 parameters; for a GPU. `strided-cnn` is what a CPU has time for."""

    class Config(StrictModel):
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
