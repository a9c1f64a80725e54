"""Layers of fixed length, and the noise between them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.core.errors import ConfigError
from advkit.models.architectures.noisy import Noise
from advkit.models.layers import NormalisedConv2d, NormalisedLinear, _RowLength, standardising
from advkit.models.network import build


def test_the_length_of_rows_has_the_gradients_of_the_norm():
    rows = torch.randn(3, 5, dtype=torch.double, requires_grad=True)
    assert torch.equal(_RowLength.apply(rows), rows.norm(dim=1))
    assert torch.autograd.gradcheck(_RowLength.apply, (rows,))
    assert torch.autograd.gradgradcheck(_RowLength.apply, (rows,))


@pytest.mark.parametrize("fixed", [True, False])
def test_only_the_direction_counts(fixed):
    """A layer is the plain one with rows as long as the gain: the root of 2 where it is fixed, else 1."""
    dense, folded = NormalisedLinear(6, 4, fixed=fixed), NormalisedConv2d(2, 4, 3, 2)
    x, images = torch.rand(5, 6), torch.rand(5, 2, 8, 7)
    for layer in (dense, folded):
        torch.nn.init.normal_(layer.bias)
        weight = nn.functional.normalize(layer.direction.flatten(1)).view_as(layer.direction)
        weight = weight * (2**0.5 if fixed or layer is folded else 1)
        if layer is dense:
            wanted, said = nn.functional.linear(x, weight, layer.bias), layer(x)
        else:
            wanted, said = nn.functional.conv2d(images, weight, layer.bias, 2, 1), layer(images)
        torch.testing.assert_close(said, wanted)
    assert folded(images).shape == (5, 4, 4, 4)
    assert "gain" in dense.state_dict()
    assert ("gain" in dict(dense.named_parameters())) != fixed
    with torch.no_grad():
        dense.direction.zero_()
    torch.testing.assert_close(dense.scale, dense.gain / 1e-6)
    for start in (NormalisedLinear(400, 300, fixed=fixed), NormalisedConv2d(100, 300, 2, 1)):
        assert start.direction.std().item() == pytest.approx(1 / 20, rel=0.02)
        assert not start.bias.any()


def test_convolutions_are_standardised_by_the_channel():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, x = NormalisedConv2d(1, 3, 3, 2), torch.rand(50, 1, 9, 9)
    with standardising(layer):
        said = layer(x)
    torch.testing.assert_close(layer(x), said, rtol=1e-4, atol=1e-5)
    assert said.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(said.std((0, 2, 3)), torch.ones(3), rtol=1e-4, atol=1e-4)
    before = layer.gain.clone()
    with standardising(layer):
        assert layer(torch.zeros_like(x)).abs().max() < 0.01  # whose outputs do not vary
    torch.testing.assert_close(layer.gain, before / 1e-3)
    layer(torch.zeros_like(x))
    torch.testing.assert_close(layer.gain, before / 1e-3)  # only inside


def test_noise_is_for_training_alone():
    noise, x = Noise(0.5), torch.zeros(10_000)
    assert torch.equal(nn.Module.eval(noise)(x), x)
    with rng.scope("cpu", 0, "test"):
        assert abs(noise.train()(x).std() - 0.5) < 0.02
    head = build("noisy-mlp-discriminator", shape=(1, 8, 8), config={"noise": 0.25}).new_head(3)
    assert (
        head[0].deviation == 0.25
        and head[1].direction.shape[0] == 3
        and "gain" in dict(head[1].named_parameters())
    )
    config = build("noisy-mlp-discriminator", shape=(1, 8, 8)).config
    assert (config.input_noise, config.noise) == (0.3, 0.5)
    for name in ("input_noise", "noise"):
        with pytest.raises(ConfigError):
            build("noisy-mlp-discriminator", shape=(1, 8, 8), config={name: -0.1})
        build("noisy-mlp-discriminator", shape=(1, 8, 8), config={name: 0})


def test_the_noisy_generator_does_not_start_on_one_image():
    with rng.scope("cpu", 0, "test"), torch.no_grad():
        network = build("noisy-mlp-generator", shape=(1, 28, 28))
        images = network(network.draw(rng.keys(0, "test", torch.arange(32))))
    assert images.var(0).mean() > 0.8 * images.var()
