"""Models whose answers are known, with images."""

import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.data.data import Data


@pytest.fixture
def small():
    """(model, data): a small random network with batch norm, 8x8 images, labelled as it sees them."""
    with rng.scope("cpu", 0, "toy"):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 5),
        ).eval()
    x = rng.uniform(torch.arange(12), (1, 8, 8))
    with torch.no_grad():  # so that every class occurs
        logits = model(x)
        model[6].bias.sub_(logits.mean(0)).div_(logits.std())
        model[6].weight.div_(logits.std())
        labels = model(x).argmax(1)
    return model, Data("toy", "all", x, labels, tuple("abcde"), torch.arange(12))
