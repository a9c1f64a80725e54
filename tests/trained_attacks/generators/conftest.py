"""A classifier that a uniform change misleads and random changes do not."""

from __future__ import annotations

import pytest
import torch

from advkit.core import rng
from advkit.data.data import Data
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build


def bright(size: int = 8) -> Model:
    """Class 1 where an image is brighter than grey, never class 2: linear."""
    network = build("mlp", shape=(1, size, size), classes=3, config={"hidden": ()})
    (linear,) = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.full((size * size,), value) for value in (0.0, 1.0, 0.0)]))
        linear.bias.copy_(torch.tensor([0.0, -0.5 * size * size, -99.0]))
    about = {"role": "classifier", "architecture": "mlp", "config": {"hidden": ()}, "classes": 3}
    return Model(network, ModelCard(**about, shape=(1, size, size))).eval()


@pytest.fixture
def model():
    return bright()


@pytest.fixture
def images():
    """Grey noise a little brighter or darker than grey; one image in ten has the wrong label."""

    def make(n: int = 60, seed: int = 0, split: str = "train") -> Data:
        ids = torch.arange(n)
        side = (ids % 2).float() * 2 - 1
        x = (
            0.5
            + 0.05 * side[:, None, None, None]
            + 0.2 * (rng.uniform(rng.keys(seed, "x", ids), (1, 8, 8)) - 0.5)
        )
        label = torch.where(ids % 10 == 9, 1 - ids % 2, ids % 2)
        return Data("toy", split, x, label, ("dark", "bright", "never"), ids)

    return make
