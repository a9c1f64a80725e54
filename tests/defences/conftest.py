"""A small classifier, its images, and a detector that sees half of what moves."""

from __future__ import annotations

import pytest
import torch

from advkit.data.data import Data
from advkit.models.checkpoint import save_model
from advkit.models.model import Model


@pytest.fixture
def model(thirds) -> Model:
    """Linear, of three classes that occur alike."""
    return thirds[0]


@pytest.fixture
def images(thirds) -> tuple[Data, Data]:
    """Training and test images with the model's own answers as labels."""
    return thirds[1](200, 1, "train"), thirds[1](240, 2, "test")


@pytest.fixture
def detector(built) -> Model:
    """Its score is the mean of the upper half of the image, less 0.5, times 100."""
    made = built("detector", "detector", network="mlp", network_config={"hidden": ()})
    layer = made.network.network.layers[-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([50.0, 0.0]))
        layer.weight[1, :32] = 100 / 32
    return made


@pytest.fixture
def here(model, detector, images, save_npz) -> None:
    """A folder with the classifier as clf.pt, the detector as det.pt and the images as toy.npz."""
    save_model(model, "clf.pt")
    save_model(detector, "det.pt")
    save_npz(*images)
