from __future__ import annotations

import math

import pytest
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.core.registry import Entry
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES, Vae, build
from advkit.models.store import Store


@pytest.fixture
def discriminator(built):
    """In the store as ``critic``."""
    model = built("conv-gan-discriminator", "discriminator", channels=(4, 8)).train()
    Store().add(model, "critic")
    return model


class ToyVae(Vae):
    """The smallest thing with an encoder and a decoder; registered by the tests that need one."""

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape)
        self.first = nn.Linear(math.prod(shape), 12)
        self.second = nn.Linear(12, 10)
        self.decoder = build("mlp-gan-generator", shape=shape, config={"latent_dim": 5, "hidden": [6]})

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.second(self.first(x.flatten(1)).relu()).chunk(2, dim=1)
        return mean, log_variance


@pytest.fixture
def vae(monkeypatch, built):
    """In the store as ``toy``; its architecture is registered for the test."""
    entry = Entry("toy-vae", ToyVae, "a toy", facts={"role": "vae"})
    assert "toy-vae" not in ARCHITECTURES
    monkeypatch.setitem(ARCHITECTURES._entries, "toy-vae", entry)
    model = built("toy-vae", "vae")
    Store().add(model, "toy")
    return model
