"""A classifier of which everything about smoothing is known in closed form."""

import pytest
import torch
from torch import nn

from advkit.data.data import Data


class Brightest(nn.Module):
    """Names the brightest of the first pixels: nothing is computed, so nothing is rounded.

    Of two pixels, the smoothed classifier's radius is their difference over the root of 2, whatever sigma is.
    """

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return x.flatten(1)[:, : self.classes]


@pytest.fixture(scope="session")
def brightest():
    return Brightest


@pytest.fixture
def distances():
    return torch.tensor([-0.6, -0.45, -0.4, -0.3, -0.2, -0.02, 0.03, 0.2, 0.3, 0.4, 0.5, 0.6])


@pytest.fixture
def data(distances):
    """Images at these distances, whose two pixels sum to 1; the third and the tenth have the wrong label."""
    images = torch.full((12, 1, 2, 3), 0.5)
    images[:, 0, 0, :2] += torch.stack([-distances, distances], 1) / 2**0.5
    labels = (distances > 0).long()
    labels[[2, 9]] = 1 - labels[[2, 9]]
    return Data("toy", "test", images, labels, ("left", "right"), torch.arange(12))
