"""Spectral normalisation, put on and baked in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advkit.core import rng
from advkit.models.network import ARCHITECTURES, build
from advkit.models.spectral import LAYERS, normalised, plain

DISCRIMINATORS = [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "discriminator"]


def make(name: str, config: dict[str, Any] | None = None) -> Any:
    with rng.scope("cpu", 0, "test"):
        return build(name, shape=(1, 8, 8), classes=3, config=config)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_plain_copy_says_the_same_under_the_architectures_own_names(name: str) -> None:
    with rng.scope("cpu", 0, "test"):
        network = normalised(make(name)).train()
        x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
        given = (x, y) if network.classes else (x,)
        for _ in range(3):
            network(*given)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    baked = plain(network)
    assert list(baked.state_dict()) == list(make(name).state_dict())
    assert type(baked) is type(network)
    assert baked.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(baked.eval()(*given), network.eval()(*given))


def test_no_layer_stretches_anything_by_more_than_one() -> None:
    network = make("conv-gan-discriminator")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(30)
    with rng.scope("cpu", 0, "test"):
        normalised(network).train()
        for _ in range(100):
            network(torch.rand(1, 1, 8, 8))
    weights = [module.weight for module in plain(network).modules() if isinstance(module, LAYERS)]
    largest = [torch.linalg.matrix_norm(weight.flatten(1), 2).item() for weight in weights]
    assert largest == pytest.approx([1, 1, 1], abs=0.02)


def test_putting_it_on_twice_is_putting_it_on_once() -> None:
    network = normalised(make("mlp-gan-discriminator"))
    names = list(network.state_dict())
    assert list(normalised(network).state_dict()) == names
