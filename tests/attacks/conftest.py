"""Small models whose answers are known."""

import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.data.data import Data


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): every smallest perturbation is known in closed form."""

    def __init__(self, weight: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def data_for(model: nn.Module, images: torch.Tensor) -> Data:
    """The images with the model's own answers as labels, so that clean accuracy is 1."""
    with torch.no_grad():
        labels = model(images).argmax(1)
    classes = model(images[:1]).shape[1]
    return Data("toy", "all", images, labels, tuple(map(str, range(classes))), torch.arange(len(images)))


@pytest.fixture
def linear():
    """(model, data): 16 pixels around 1/2, so that the box [0, 1] never matters for eps below 0.3."""
    weight = rng.normal(torch.tensor([7]), (16,))[0]
    x = 0.5 + 0.2 * (rng.uniform(torch.arange(40), (1, 4, 4)) - 0.5)
    model = Linear(weight, -0.5 * float(weight.sum()))
    return model, data_for(model, x)


@pytest.fixture
def convolutional():
    """(model, data): a small random network with batch norm and dropout, 8x8 images.

    No image lies so near to a boundary that rounding, or a budget of 1e-4, could change its class.
    """
    with rng.scope("cpu", 0, "toy"):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 5),
        )
    x = rng.uniform(torch.arange(40), (1, 8, 8))
    model.eval()
    with torch.no_grad():  # so that every class occurs
        logits = model(x)
        model[7].bias -= logits.mean(0)
        model[7].weight /= logits.std()
        model[7].bias /= logits.std()
        best, second = model(x).topk(2).values.T
    return model, data_for(model, x[best - second > 0.04][:24])
