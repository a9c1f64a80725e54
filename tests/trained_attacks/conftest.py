"""Classifiers that a known change misleads, and grey images for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.data.data import Data
from advkit.models.load import wrap
from advkit.models.model import Model


class Linear(nn.Module):
    """Three classes, logits (0, w.x + b, -9): to be seen as class 1, every pixel should go the way of w."""

    def __init__(self, weight: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.flatten(1) @ self.weight.flatten() + self.bias
        return torch.stack([torch.zeros_like(score), score, torch.full_like(score, -9.0)], 1)


@pytest.fixture
def grey() -> Callable[..., Data]:
    """Grey noise on 12x12 pixels, with a model's own answers as labels."""

    def make(model: nn.Module, n: int = 60, seed: int = 0, split: str = "train") -> Data:
        x = 0.3 + 0.4 * rng.uniform(rng.keys(seed, "toy", torch.arange(n)), (1, 12, 12))
        with torch.no_grad():
            labels = model(x).argmax(1)
        return Data("toy", split, x, labels, ("dark", "bright", "never"), torch.arange(n))

    return make


@pytest.fixture
def bright() -> Model:
    """Class 1 where an image is brighter than the average one."""
    return wrap(Linear(torch.ones(1, 12, 12), -72.5), shape=(1, 12, 12)).eval()


@pytest.fixture
def mixed() -> tuple[Model, torch.Tensor]:
    """(model, its weights), of both signs and none of them small."""
    weight = rng.normal(torch.tensor([3]), (1, 12, 12))[0]
    weight = weight + 0.3 * weight.sign()
    return wrap(Linear(weight, -0.5 * float(weight.sum())), shape=(1, 12, 12)).eval(), weight


@pytest.fixture
def model(built: Callable[..., Model]) -> Model:
    """Class 1 where an image is brighter than grey, never class 2: linear, and with a card."""
    made = built("mlp", "classifier", 3, hidden=())
    layer = made.network.layers[-1]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [1.0], [0.0]]).expand(3, 64))
        layer.bias.copy_(torch.tensor([0.0, -32.0, -99.0]))
    return made


@pytest.fixture
def images() -> Callable[..., Data]:
    """Noise a little brighter or darker than grey; one image in ten has the wrong label."""

    def make(n: int = 60, seed: int = 0, split: str = "train") -> Data:
        ids = torch.arange(n)
        side = (ids % 2).float() * 2 - 1
        x = 0.2 * (rng.uniform(rng.keys(seed, "x", ids), (1, 8, 8)) - 0.5)
        x = x + 0.5 + 0.05 * side[:, None, None, None]
        label = torch.where(ids % 10 == 9, 1 - ids % 2, ids % 2)
        return Data("toy", split, x, label, ("dark", "bright", "never"), ids)

    return make
