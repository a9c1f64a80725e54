from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from advkit import load_model
from advkit.errors import ConfigError, ModelError
from advkit.models.card import Shape
from advkit.models.network import ARCHITECTURES

CLASSIFIERS = ["lenet", "madry-cnn", "mlp", "resnet18-cifar", "small-cnn"]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 20, 20)], ids=str)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_is_known_by_its_shapes(name: str, shape: Shape, make: Any, tmp_path: Path) -> None:
    model = make(name, shape=shape, classes=7)
    path = tmp_path / "foreign.pth"
    torch.save(model.network.state_dict(), path)
    # Global pooling leaves the size open, so it has to be said (the others have it in a dense layer).
    found = load_model(path, shape=shape if name == "resnet18-cifar" else None)
    assert (found.card.architecture, found.card.shape, found.card.classes) == (name, shape, 7)
    assert name in found.card.notes
    x = torch.rand(2, *shape)
    assert torch.equal(found(x), model(x))


@pytest.mark.parametrize("rename", ["wrapped", "numbered", "no counters"])
def test_other_names_in_the_same_order_fit(rename: str, make: Any, tmp_path: Path) -> None:
    model = make("resnet18-cifar", shape=(3, 16, 16))
    state = model.network.state_dict()
    if rename == "wrapped":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif rename == "numbered":
        state = {f"{number:03d}": tensor for number, tensor in enumerate(state.values()) if tensor.dim() > 0}
    else:
        state = {name: tensor for name, tensor in state.items() if tensor.dim() > 0}
    torch.save(state, tmp_path / "m.pt")
    found = load_model(tmp_path / "m.pt")
    assert ("in their order" in found.card.notes) == (rename != "no counters")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(found(x), model(x))


def test_names_win_over_order(make: Any, tmp_path: Path) -> None:
    model = make("mlp", shape=(1, 16, 16))  # 256 -> 256 -> 256: two layers of one shape
    state = model.network.state_dict()
    swapped = sorted(state, key=lambda name: ("layers.3", "layers.1", "layers.5").index(name[:8]))
    torch.save({name: state[name] for name in swapped}, tmp_path / "m.pt")
    found = load_model(tmp_path / "m.pt")
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(found(x), model(x))
    assert "order" not in found.card.notes


@pytest.fixture
def twin() -> Iterator[str]:
    """A second architecture with LeNet's shapes."""
    lenet = ARCHITECTURES.get("lenet")

    class Twin(lenet):  # type: ignore[misc,valid-type]
        """The same layers."""

    ARCHITECTURES.register("lenet-twin", summary="for this test", role="classifier")(Twin)
    yield "lenet-twin"
    del ARCHITECTURES._entries["lenet-twin"]


def test_several_that_fit_are_listed_and_one_may_be_named(twin: str, make: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(make("lenet").network.state_dict(), path)
    with pytest.raises(ConfigError, match="fit lenet, lenet-twin; say which with --arch"):
        load_model(path)
    assert load_model(path, arch=twin).card.architecture == twin


def test_none_that_fits_lists_what_was_tried(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Conv1d(3, 4, 5).state_dict(), path)
    with pytest.raises(ModelError, match=r"none of the registered classifiers \(.*small-cnn.*--arch"):
        load_model(path)


@pytest.mark.parametrize(
    ("arch", "error", "said"),
    [
        ("madry-cnn", ModelError, "'conv1.weight' is 32x1x3x3 where 32x1x5x5 is wanted"),
        ("resnet18-cifar", ModelError, "8 tensors where 102 are wanted"),
        ("trunk-classifier", ModelError, "have no defaults"),
        ("lenett", ConfigError, "did you mean 'lenet'"),
    ],
)
def test_a_named_architecture_that_does_not_fit(
    arch: str, error: type[Exception], said: str, make: Any, tmp_path: Path
) -> None:
    torch.save(make("lenet").network.state_dict(), tmp_path / "m.pt")
    with pytest.raises(error, match=said):
        load_model(tmp_path / "m.pt", arch=arch)


def test_a_said_shape_is_taken_where_the_weights_leave_it_open(make: Any, tmp_path: Path) -> None:
    torch.save(make("lenet", shape=(1, 28, 28)).network.state_dict(), tmp_path / "m.pt")
    for said, found in (((1, 30, 30), (1, 30, 30)), (None, (1, 28, 28)), ((3, 32, 32), (1, 28, 28))):
        model = load_model(tmp_path / "m.pt", shape=said)
        assert model.card.shape == found
        assert ("was assumed" in model.card.notes.split("; ")[1]) == (said != found)


def test_other_roles_by_name(make: Any, tmp_path: Path) -> None:
    critic = make("conv-gan-discriminator", shape=(1, 28, 28))
    torch.save(critic.network.state_dict(), tmp_path / "m.pt")
    found = load_model(tmp_path / "m.pt", arch="conv-gan-critic", role="discriminator")
    assert (found.card.architecture, found.card.classes) == ("conv-gan-discriminator", None)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(found(x), critic(x))


@pytest.mark.parametrize(
    ("file", "architecture", "shape"),
    [
        ("mnist_lenet5_clntrained.pt", "lenet", (1, 28, 28)),
        ("mnist_lenet5_advtrained.pt", "lenet", (1, 28, 28)),
        ("convex_adversarial_mnist.pth", "small-cnn", (1, 28, 28)),
        ("cifar_cnn_a_adv.pth", "small-cnn", (3, 32, 32)),
    ],
)
def test_public_checkpoints_are_known(file: str, architecture: str, shape: Shape, subjects: Path) -> None:
    card = load_model(subjects / file).card
    assert (card.architecture, card.shape, card.classes) == (architecture, shape, 10)
    assert "without normalisation were assumed" in card.notes
