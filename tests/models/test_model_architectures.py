from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advkit import rng
from advkit.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.checkpoint import load_checkpoint, save_model
from advkit.models.network import ARCHITECTURES, Discriminator, Generator, build

SMALL: dict[str, dict[str, Any]] = {
    "resnet18-cifar": {"width": 4},
    "trunk-classifier": {"trunk": "conv-gan-discriminator"},
}
SHAPES: list[Shape] = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (1, 9, 14)]
VAES = [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "vae"]
SMALL["encoder-classifier"] = {"encoder": next(iter(VAES), None)}
NAMES = [entry.name for entry in ARCHITECTURES if VAES or entry.name != "encoder-classifier"]


def inputs(network: nn.Module, shape: Shape, n: int = 4) -> torch.Tensor:
    key = rng.keys(0, "test", torch.arange(n))
    return network.draw(key) if isinstance(network, Generator) else rng.uniform(key, shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_takes_every_size_and_its_gradients_reach_all_parameters(
    name: str, shape: Shape
) -> None:
    role = ARCHITECTURES.entry(name).facts["role"]
    with rng.scope("cpu", 0, "test"):
        network = build(name, shape=shape, classes=7, config=SMALL.get(name))
        x = inputs(network, shape)
        outputs = network.train()(x)
    wanted = {"classifier": (4, 7), "generator": (4, *shape), "discriminator": (4,)}
    assert tuple(outputs.shape) == wanted[role]
    if isinstance(network, Generator):
        assert outputs.min() >= 0
        assert outputs.max() <= 1
    if isinstance(network, Discriminator):
        assert network.features(x).shape == (4, network.feature_dim)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.dim() == 1 or parameter.grad.any(), parameter_name


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_comes_back_from_its_file(
    name: str, suffix: str, make: Any, tmp_path: Path
) -> None:
    model = make(name, config=SMALL.get(name, {}))
    again = load_checkpoint(save_model(model, tmp_path / f"m{suffix}"))
    x = inputs(model.network, model.card.shape)
    assert torch.equal(model(x), again(x))
    assert again.hash == model.hash
    assert not again.training


@pytest.mark.parametrize(
    ("name", "count"), [("conv-gan-generator", 2_343_681), ("conv-gan-discriminator", 212_865)]
)
def test_the_convolutional_gan_has_the_sizes_of_its_source(name: str, count: int) -> None:
    state = build(name, shape=(1, 28, 28)).state_dict()
    assert sum(tensor.numel() for tensor in state.values() if tensor.dim() > 0) == count


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("lenet", (1, 28, 28), 648_226),
        ("madry-cnn", (1, 28, 28), 3_274_634),
        ("small-cnn", (1, 28, 28), 166_406),
        ("resnet18-cifar", (3, 32, 32), 11_173_962),
    ],
)
def test_classifiers_have_the_sizes_of_their_sources(name: str, shape: Shape, count: int) -> None:
    with torch.device("meta"):
        network = build(name, shape=shape, classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_a_trunk_has_the_discriminators_weights_but_for_its_head() -> None:
    discriminator = build("conv-gan-discriminator", shape=(1, 8, 8)).eval()
    classifier = build(
        "trunk-classifier", shape=(1, 8, 8), classes=10, config={"trunk": "conv-gan-discriminator"}
    ).eval()
    state = {k: v for k, v in discriminator.state_dict().items() if not k.startswith("head.")}
    classifier.trunk.load_state_dict(state)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(classifier(x), classifier.head(discriminator.features(x)))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "config", "said"),
    [
        ("lenet", (1, 3, 3), 10, {}, "at least 1 channel and 4x4 pixels"),
        ("lenet", (0, 8, 8), 10, {}, "at least 1 channel"),
        ("resnet18-cifar", (1, 8, 8), None, {}, "number of classes"),
        ("mlp", (1, 8, 8), 1, {}, "number of classes"),
        ("mlp", (1, 8, 8), 10, {"hiden": []}, "did you mean 'hidden'"),
        ("mlp", (1, 8, 8), 10, {"hidden": [0]}, "greater than or equal to 1"),
        ("trunk-classifier", (1, 8, 8), 10, {}, "'trunk' is missing"),
        ("trunk-classifier", (1, 8, 8), 10, {"trunk": "lenet"}, "'lenet' is a classifier"),
        ("trunk-classifier", (1, 8, 8), 10, {"trunk": "conv-gan-discriminatr"}, "did you mean"),
        ("lenett", (1, 8, 8), 10, {}, "did you mean 'lenet'"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(
    name: str, shape: Shape, classes: int | None, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build(name, shape=shape, classes=classes, config=config)
