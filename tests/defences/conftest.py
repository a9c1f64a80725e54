"""A small classifier, its images, and a detector that sees half of what moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from advkit.core import rng
from advkit.data.data import Data
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import build

LINEAR = {"hidden": ()}


def pixels(n: int, seed: int) -> torch.Tensor:
    """(n, 1, 8, 8) of 8-bit levels."""
    return (rng.uniform(rng.keys(seed, "x", torch.arange(n)), (1, 8, 8)) * 255).round() / 255


@pytest.fixture
def model() -> Model:
    """Linear, of three classes that occur alike."""
    with rng.scope("cpu", 0, "original"):
        network = build("mlp", shape=(1, 8, 8), classes=3, config=LINEAR)
    card = ModelCard(role="classifier", architecture="mlp", config=LINEAR, shape=(1, 8, 8), classes=3)
    made = Model(network, card)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)
        network.layers[-1].bias -= made(pixels(200, 9)).mean(0)
    return made.eval()


@pytest.fixture
def detector() -> Model:
    """Its score is the mean of the upper half of the image, less 0.5, times 100."""
    config = {"network": "mlp", "network_config": LINEAR}
    network = build("detector", shape=(1, 8, 8), config=config)
    layer = network.network.layers[-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([50.0, 0.0]))
        layer.weight[1, :32] = 100 / 32
    card = ModelCard(role="detector", architecture="detector", config=config, shape=(1, 8, 8))
    return Model(network, card).eval()


@pytest.fixture
def images(model: Model) -> tuple[Data, Data]:
    """Training and test images with the model's own answers as labels."""

    def make(n: int, seed: int, split: str) -> Data:
        x = (pixels(n, seed) * 255).round().to(torch.uint8)
        with torch.no_grad():
            labels = model(x / 255).argmax(1)
        return Data("toy", split, x, labels, ("a", "b", "c"), torch.arange(n))

    return make(200, 1, "train"), make(240, 2, "test")


@pytest.fixture
def here(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    model: Model,
    detector: Model,
    images: tuple[Data, Data],
) -> None:
    """A folder with the classifier as clf.pt, the detector as det.pt and the images as toy.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    save_model(model, "clf.pt")
    save_model(detector, "det.pt")
    train, test = images
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    np.savez("toy.npz", **arrays)
