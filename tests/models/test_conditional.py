"""Networks that are told a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from advkit import load_model
from advkit.core import rng
from advkit.core.errors import DataError
from advkit.models.checkpoint import save_model
from advkit.models.network import ARCHITECTURES, Generator, build, pairs

WRAPPERS = ["conditional-generator", "projection-discriminator", "auxiliary-discriminator"]
GENERATORS, TRUNKS = (
    [entry.name for entry in ARCHITECTURES if entry.facts["role"] == role and entry.name not in WRAPPERS]
    for role in ("generator", "discriminator")
)


@pytest.mark.parametrize("name", GENERATORS)
def test_any_generator_draws_what_it_is_told(name: str) -> None:
    with rng.scope("cpu", 0, "test"):
        network = build(
            "conditional-generator", shape=(1, 8, 8), classes=3, config={"generator": name}
        ).eval()
    assert isinstance(network, Generator)
    assert network.latent_dim == build(name, shape=(1, 8, 8)).latent_dim
    z = network.draw(rng.keys(0, "test", torch.arange(2)))
    assert z.shape == (2, network.latent_dim)
    images = network(z.repeat(3, 1), torch.arange(3).repeat_interleave(2))
    assert len(images.flatten(1).unique(dim=0)) == 6  # each class and each latent vector tells


@pytest.mark.parametrize("name", TRUNKS)
def test_a_projection_adds_what_the_class_sees_in_the_features(name: str) -> None:
    with rng.scope("cpu", 0, "test"):
        network = build("projection-discriminator", shape=(1, 8, 8), classes=3, config={"trunk": name}).eval()
    bare = build(name, shape=(1, 8, 8)).eval()
    bare.load_state_dict(
        {
            **network.trunk.state_dict(),
            **{f"head.{key}": value for key, value in network.head.state_dict().items()},
        }
    )
    x, y = rng.uniform(torch.arange(4), (1, 8, 8)), torch.tensor([0, 1, 2, 0])
    wanted = bare(x) + torch.einsum("nf,nf->n", network.embedding.weight[y], bare.features(x))
    torch.testing.assert_close(network(x, y), wanted)


def test_an_auxiliary_head_says_the_same_in_one_pass_as_in_two() -> None:
    network = build("auxiliary-discriminator", shape=(1, 8, 8), classes=3).eval()
    x = torch.rand(4, 1, 8, 8)
    logits, classes = network.judge(x)
    assert torch.equal(logits, network(x))
    assert torch.equal(logits, network(x, torch.tensor([0, 1, 2, 0])))
    assert torch.equal(classes, network.classify(x))


def rows(network: torch.nn.Module) -> torch.Tensor:
    return torch.rand(2, network.latent_dim) if isinstance(network, Generator) else torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrong_labels_are_refused(name: str, make: Any) -> None:
    network = make(name, classes=3).network
    needed = name != "auxiliary-discriminator"
    for labels in ([0, 3], [-1, 0], [0], [0.0, 1.0], *([None] if needed else [])):
        with pytest.raises(DataError):
            network(rows(network), labels and torch.tensor(labels))


def test_they_are_no_pair_of_their_own() -> None:
    stems = {name.removesuffix("-generator").removesuffix("-discriminator") for name in WRAPPERS}
    assert stems.isdisjoint(pairs())


@pytest.mark.parametrize("name", WRAPPERS)
def test_their_weights_alone_tell_the_classes(name: str, make: Any, tmp_path: Path) -> None:
    model = make(name, classes=7, shape=(1, 28, 28), labels=tuple("abcdefg"))
    torch.save(model.network.state_dict(), tmp_path / "bare.pth")
    found = load_model(tmp_path / "bare.pth", arch=name)
    assert (found.card.classes, found.card.shape) == (7, (1, 28, 28))
    known = load_model(save_model(model, tmp_path / "m.safetensors"), role=model.card.role)
    assert known.card.labels == tuple("abcdefg")
    assert known.hash == model.hash
