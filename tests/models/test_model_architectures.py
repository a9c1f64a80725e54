from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advkit import load_model
from advkit.core import rng
from advkit.core.errors import ConfigError, ModelError
from advkit.models.architectures.conditional import AuxiliaryDiscriminator
from advkit.models.card import Shape
from advkit.models.checkpoint import load_checkpoint, save_model
from advkit.models.model import weights_hash
from advkit.models.network import ARCHITECTURES, Discriminator, Generator, Vae, build
from advkit.models.store import Store

SMALL: dict[str, dict[str, Any]] = {
    "resnet18-cifar": {"width": 4},
    "trunk-classifier": {"trunk": "conv-gan-discriminator"},
    "encoder-classifier": {"encoder": "conv-vae"},
}
SHAPES: list[Shape] = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (1, 9, 14)]
NAMES = [entry.name for entry in ARCHITECTURES]
GENERATORS, DISCRIMINATORS, VAES = (
    [entry.name for entry in ARCHITECTURES if entry.facts["role"] == role]
    for role in ("generator", "discriminator", "vae")
)
SPREAD = 0.3
"""Least share of a fresh generator's variance that is between its images."""


def inputs(network: nn.Module, shape: Shape, n: int = 4) -> tuple[torch.Tensor, ...]:
    """What one calls a network with: latent vectors or images, and classes where it is conditional."""
    key = rng.keys(0, "test", torch.arange(n))
    x = network.draw(key) if isinstance(network, Generator) else rng.uniform(key, shape)
    conditional = isinstance(network, Generator | Discriminator) and network.classes is not None
    return (x, torch.arange(n) % network.classes) if conditional else (x,)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_takes_every_size_and_its_gradients_reach_all_parameters(
    name: str, shape: Shape
) -> None:
    role = ARCHITECTURES.entry(name).facts["role"]
    with rng.scope("cpu", 0, "test"):
        network = build(name, shape=shape, classes=7, config=SMALL.get(name)).train()
        x = inputs(network, shape)
        outputs = network(*x)
        wanted = {"classifier": (4, 7), "discriminator": (4,), "detector": (4,)}
        assert tuple(outputs.shape) == wanted.get(role, (4, *shape))
        if role in ("generator", "vae"):
            assert outputs.min() >= 0
            assert outputs.max() <= 1
        if isinstance(network, Discriminator):
            assert network.features(x[0]).shape == (4, network.feature_dim)
        for more in others(network, x[0]):
            outputs = torch.cat([outputs.flatten(), more.flatten()])
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.dim() == 1 or parameter.grad.any(), parameter_name


def others(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a network says besides its output."""
    if isinstance(network, Vae):
        mean, log_variance = network.encode(x)
        assert mean.shape == log_variance.shape == (len(x), network.decoder.latent_dim)
        return mean, log_variance
    if isinstance(network, AuxiliaryDiscriminator):
        classes = network.classify(x)
        assert classes.shape == (len(x), network.classes)
        return (classes,)
    return ()


@pytest.mark.parametrize("name", GENERATORS + DISCRIMINATORS + VAES)
def test_a_start_follows_from_the_seed_and_an_answer_from_its_row_alone(name: str) -> None:
    networks = []
    for seed in (0, 0, 1):
        with rng.scope("cpu", seed, "test"):
            networks.append(build(name, shape=(1, 8, 8), classes=7, config=SMALL.get(name)).eval())
    x = inputs(networks[0], (1, 8, 8), 16)
    same, again, other = (network(*x) for network in networks)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    mates = tuple(torch.cat([values[:1], values[1:].flip(0)]) for values in x)
    assert torch.equal(networks[0](*mates)[0], same[0])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_does_not_start_on_one_image(name: str, shape: Shape) -> None:
    """Of what varies in its first images, a good part varies from one to the next."""
    with rng.scope("cpu", 0, "test"), torch.no_grad():
        network = build(name, shape=shape, classes=7).train()
        images = network(*inputs(network, shape, 32))
    between, within = images.var(0).mean(), images.mean(0).var()
    assert between > SPREAD * (between + within), (between, within)
    assert between.sqrt() > 0.005


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_the_gradient_of_every_discriminator_has_a_gradient(name: str) -> None:
    """R1, R2 and the gradient penalty are nothing without; a mere line would have none."""
    with rng.scope("cpu", 0, "test"):
        network = build(name, shape=(1, 9, 14), classes=7).train()
        x = inputs(network, (1, 9, 14))
        x[0].requires_grad_(True)
        slope = torch.autograd.grad(network(*x).sum(), x[0], create_graph=True)[0]
    slope.square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter.dim() > 1 and parameter_name != "classifier.weight":  # has no say in being real
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
            assert parameter.grad.any(), parameter_name


def test_a_residual_gan_begins_near_its_trunk() -> None:
    """However many blocks there are: their branches add next to nothing at first, and go on to learn."""
    config = {"width": 8, "depth": 3, "group": 8}
    with rng.scope("cpu", 0, "test"):
        network = build("residual-gan-discriminator", shape=(1, 28, 28), config=config)
    branches = [module for name, module in network.named_modules() if name.endswith("branch")]
    assert len(branches) == 3 * 3
    x = rng.uniform(torch.arange(4), (1, 28, 28))
    whole = network.features(x)
    for branch in branches:
        torch.nn.init.zeros_(branch[-1].weight)
    torch.testing.assert_close(network.features(x), whole, rtol=0, atol=0.1 * whole.std().item())


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_found_in_the_store_and_in_hand(name: str, make: Any, store: Store) -> None:
    model = make(name, config=SMALL.get(name, {}))
    store.add(model, "it")
    role = ARCHITECTURES.entry(name).facts["role"]
    wrong = "generator" if role != "generator" else "discriminator"
    with pytest.raises(ModelError):
        load_model("it", role=wrong, store=store)
    assert load_model("it", role=role, store=store).hash == model.hash
    known = load_model(model.network).card
    facts = ("role", "architecture", "shape", "classes")
    assert [getattr(known, fact) for fact in facts] == [getattr(model.card, fact) for fact in facts]
    kept = load_checkpoint(save_model(load_model(model.network), store.root / "hand.pt"))
    assert weights_hash(kept.network.state_dict()) == weights_hash(model.network.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_comes_back_from_its_file(
    name: str, suffix: str, make: Any, tmp_path: Path
) -> None:
    model = make(name, config=SMALL.get(name, {}))
    again = load_checkpoint(save_model(model, tmp_path / f"m{suffix}"))
    x = inputs(model.network, model.card.shape)
    assert torch.equal(model(*x), again(*x))
    for one, other in zip(others(model.network, x[0]), others(again.network, x[0]), strict=True):
        assert torch.equal(one, other)
    assert again.card.role == ARCHITECTURES.entry(name).facts["role"]
    assert again.hash == model.hash
    assert not again.training


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dense-conv-gan-generator", 100 * 6272 + 6272 + 128 * 64 * 25 + 64 + 64 * 25 + 1),
        ("dense-conv-gan-discriminator", 784 * 128 + 128 + 128 + 1),
        ("upsampling-gan-generator", 100 * 6272 + 6272 + 128 * 64 * 25 + 64 + 64 * 25 + 1),
        ("upsampling-gan-discriminator", 64 * 25 + 64 + 64 * 128 * 25 + 128 + 4 * 128 + 6272 + 1),
        ("mlp-gan-generator", 101 * 256 + 257 * 512 + 513 * 1024 + 4 * (256 + 512 + 1024) + 1025 * 784),
        ("mlp-gan-discriminator", 785 * 512 + 513 * 256 + 257),
        ("conv-gan-generator", 2_343_681),
        ("conv-gan-discriminator", 212_865),
    ],
)
def test_gans_have_the_sizes_of_their_sources(name: str, count: int) -> None:
    """Batch norm's running statistics are counted, as the sources do."""
    with torch.device("meta"):
        state = build(name, shape=(1, 28, 28)).state_dict()
    assert sum(tensor.numel() for tensor in state.values() if tensor.dim() > 0) == count


def test_dcgan_has_the_channels_of_its_source() -> None:
    with torch.device("meta"):
        generator = build("dcgan-generator", shape=(3, 64, 64), config={"width": 128})
        discriminator = build("dcgan-discriminator", shape=(3, 64, 64), config={"width": 128})
    layers = [layer for layer in generator.modules() if isinstance(layer, nn.Linear | nn.ConvTranspose2d)]
    assert [layer.bias is not None for layer in layers] == [False] * 4 + [True]  # others are normalised
    up = [tuple(p.shape) for p in generator.parameters() if p.dim() == 4]
    assert up == [(1024, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 3, 4, 4)]
    down = [tuple(p.shape) for p in discriminator.parameters() if p.dim() == 4]
    assert down == [(128, 3, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1024, 512, 4, 4)]


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("lenet", (1, 28, 28), 648_226),
        ("madry-cnn", (1, 28, 28), 3_274_634),
        ("small-cnn", (1, 28, 28), 166_406),
        ("trades-cnn", (1, 28, 28), 312_202),
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
    ("name", "shape", "classes", "config"),
    [
        ("lenet", (1, 3, 3), 10, {}), ("lenet", (0, 8, 8), 10, {}), ("resnet18-cifar", (1, 8, 8), None, {}),
        ("mlp", (1, 8, 8), 1, {}), ("mlp", (1, 8, 8), 10, {"hiden": []}),
        ("mlp", (1, 8, 8), 10, {"hidden": [0]}),
        ("trunk-classifier", (1, 8, 8), 10, {}), ("trunk-classifier", (1, 8, 8), 10, {"trunk": "lenet"}),
        ("trunk-classifier", (1, 8, 8), 10, {"trunk": "conv-gan-discriminatr"}),
        ("lenett", (1, 8, 8), 10, {}), ("detector", (1, 8, 8), None, {"network": "conv-vae"}),
        ("dcgan-generator", (1, 7, 9), None, {}), ("dcgan-discriminator", (0, 8, 8), None, {}),
        ("residual-gan-generator", (1, 4, 4), None, {}),
        ("residual-gan-discriminator", (1, 8, 8), None, {"width": 8, "group": 3}),
        ("conditional-generator", (1, 8, 8), None, {}), ("projection-discriminator", (1, 8, 8), None, {}),
        ("auxiliary-discriminator", (1, 8, 8), 0, {}),
        ("conditional-generator", (1, 8, 8), 10, {"generator": "lenet"}),
        ("conditional-generator", (1, 8, 8), 10, {"generator": "conditional-generator"}),
        ("conditional-generator", (1, 8, 8), 10, {"generator_config": {"latent": 3}}),
        ("projection-discriminator", (1, 8, 8), 10, {"trunk": "mlp"}),
        ("auxiliary-discriminator", (1, 8, 8), 10, {"trunk": "projection-discriminator"}),
        ("conv-vae", (1, 8, 8), None, {"decoder": "conv-gan-discriminator"}),
        ("conv-vae", (1, 8, 8), None, {"decoder": "mlp-gan-generator"}),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_in_one_sentence(
    name: str, shape: Shape, classes: int | None, config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as refused:
        build(name, shape=shape, classes=classes, config=config)
    assert "\n" not in str(refused.value) and all(
        str(value) in str(refused.value) for value in config.values() if isinstance(value, str)
    )
