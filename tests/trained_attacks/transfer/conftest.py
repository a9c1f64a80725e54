"""A small classifier, and images that it can be asked about."""

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


@pytest.fixture
def model() -> Model:
    """Linear, of three classes that occur alike."""
    with rng.scope("cpu", 0, "original"):
        network = build("mlp", shape=(1, 8, 8), classes=3, config={"hidden": ()})
    model = Model(
        network,
        ModelCard(role="classifier", architecture="mlp", config={"hidden": ()}, shape=(1, 8, 8), classes=3),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)
        network.layers[-1].bias -= model(_pixels(200, 9)).mean(0)
    return model.eval()


def _pixels(n: int, seed: int) -> torch.Tensor:
    """(n, 1, 8, 8) of 8-bit levels."""
    return (rng.uniform(rng.keys(seed, "x", torch.arange(n)), (1, 8, 8)) * 255).round() / 255


@pytest.fixture
def images(model: Model) -> tuple[Data, Data]:
    """Training and test images with the model's own answers as labels."""

    def make(n: int, seed: int, split: str) -> Data:
        x = (_pixels(n, seed) * 255).round().to(torch.uint8)
        with torch.no_grad():
            labels = model(x / 255).argmax(1)
        return Data("toy", split, x, labels, ("a", "b", "c"), torch.arange(n))

    return make(300, 1, "train"), make(100, 2, "test")


@pytest.fixture
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, model: Model, images: tuple[Data, Data]) -> None:
    """A folder with the classifier as clf.pt and the images as toy.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    save_model(model, "clf.pt")
    train, test = images
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    np.savez("toy.npz", **arrays)
