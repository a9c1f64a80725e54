"""Layers of fixed length, and the noise between them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advkit import rng
from advkit.models.network import build
from advkit.models.noisy import Noise
from advkit.models.normalised import NormalisedConv2d, NormalisedLinear, _RowLength, standardising


def test_the_length_of_rows_has_the_gradients_of_the_norm():
    rows = torch.randn(3, 5, dtype=torch.double, requires_grad=True)
    assert torch.equal(_RowLength.apply(rows), rows.norm(dim=1))
    assert torch.autograd.gradcheck(_RowLength.apply, (rows,))
    assert torch.autograd.gradgradcheck(_RowLength.apply, (rows,))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (NormalisedLinear(6, 4, fixed=True), torch.rand(5, 6)),
        (NormalisedConv2d(2, 4, 3, 2), torch.rand(5, 2, 7, 7)),
    ],
)
def test_only_the_direction_counts(layer, x):
    before = layer(x)
    with torch.no_grad():
        layer.direction.mul_(3)
    torch.testing.assert_close(layer(x), before)
    assert "gain" not in dict(layer.named_parameters())
    assert "gain" in dict(NormalisedLinear(6, 4, fixed=False).named_parameters())


def test_convolutions_are_standardised_by_the_channel():
    layer = NormalisedConv2d(1, 3, 3, 2)
    x = torch.rand(50, 1, 9, 9)
    with standardising(layer):
        said = layer(x)
    torch.testing.assert_close(layer(x), said, rtol=1e-4, atol=1e-5)
    assert said.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(said.std((0, 2, 3)), torch.ones(3), rtol=1e-4, atol=1e-4)


def test_noise_is_for_training_alone():
    noise, x = Noise(0.5), torch.zeros(10_000)
    assert torch.equal(nn.Module.eval(noise)(x), x)
    with rng.scope("cpu", 0, "test"):
        assert abs(noise.train()(x).std() - 0.5) < 0.02


def test_the_noisy_generator_does_not_start_on_one_image():
    with rng.scope("cpu", 0, "test"), torch.no_grad():
        network = build("noisy-mlp-generator", shape=(1, 28, 28))
        images = network(network.draw(rng.keys(0, "test", torch.arange(32))))
    assert images.var(0).mean() > 0.8 * images.var()
