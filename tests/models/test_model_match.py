from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from advkit import load_model
from advkit.core.errors import ConfigError, ModelError
from advkit.models.card import Shape
from advkit.models.match import SIZES, _shapes, classes_in, fits, misfit
from advkit.models.network import ARCHITECTURES, build

SMALL = ["lenet", "mlp", "small-cnn"]
CUSTOMARY = {1: [28, 8], 3: [32, 64]}


@cache
def shapes(name: str, shape: Shape, classes: int) -> list[tuple[int, ...]] | None:
    """Of the tensors of a network, in their order; None where there is none on such images."""
    try:
        with torch.device("meta"):
            return [tuple(p.shape) for p in build(name, shape=shape, classes=classes).state_dict().values()]
    except ConfigError:
        return None


def renumbered(name: str) -> str:
    """The name with other numbers in the same order, which no name here has."""
    return re.sub(r"\d+", lambda found: str(int(found[0]) + 20), name)


def reworded(name: str) -> str:
    """The name with words for its numbers, so that it says nothing of an order."""
    return re.sub(r"\d", lambda found: "zyxwvutsrq"[int(found[0])], name)


def deep_first(name: str, tensor: torch.Tensor) -> tuple[bool, int]:
    """Sorts the convolution of the most channels to the front."""
    return tensor.dim() != 4, -max(tensor.shape, default=0)


@settings(max_examples=15)
@given(
    name=st.sampled_from(SMALL),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([8, 9, 28, 29, 32, 63, 64, 65, 66, 90]) | st.integers(8, 64),
    classes=st.sampled_from([2, 7]),
    said=st.none() | st.sampled_from([(1, 8, 8), (1, 30, 28), (3, 20, 64), (2, 9, 9), (3, 90, 90)]),
    changed=st.sampled_from(["nothing", "order", "numbers", "words"]),
)
@example(name="mlp", channels=3, size=64, classes=2, said=None, changed="nothing")
@example(name="mlp", channels=3, size=65, classes=2, said=None, changed="nothing")
@example(name="mlp", channels=1, size=65, classes=2, said=None, changed="nothing")
@example(name="lenet", channels=1, size=28, classes=2, said=None, changed="order")
@example(name="lenet", channels=3, size=28, classes=2, said=None, changed="words")
@example(name="mlp", channels=1, size=9, classes=2, said=None, changed="words")
@example(name="lenet", channels=1, size=28, classes=2, said=(1, 30, 28), changed="nothing")
def test_what_fits_is_the_first_size_that_gives_these_shapes(
    name: str, channels: int, size: int, classes: int, said: Shape | None, changed: str
) -> None:
    """Against all networks of all sizes: a said one, the customary ones, then from the smallest up. Without
    names or numbers to go by, only where no two tensors are alike."""
    with torch.device("meta"):
        state = build(name, shape=(channels, size, size), classes=classes).state_dict()
    own = [tuple(tensor.shape) for tensor in state.values()]
    order = [*([said] if said else []), *((c, s, s) for c in (1, 3) for s in [*CUSTOMARY[c], *range(8, 65)])]
    wanted = {}
    for other in SMALL:
        if (
            found := next((shape for shape in order if shapes(other, shape, classes) == own), None)
        ) is not None:
            taller = (found[0], found[1] + 1, found[2])
            wanted[other] = found, shapes(other, taller, classes) == own
    keys = sorted(state, key=lambda key: deep_first(key, state[key])) if changed == "order" else [*state]
    called = {"numbers": renumbered, "words": reworded}.get(changed, str)
    given_names = {called(key): state[key] for key in keys} | {"epoch": torch.tensor(3)}
    alike = [(tuple(state[key].shape), key.rpartition(".")[2]) for key in state]
    if changed == "words" and len({*alike}) < len(alike):
        wanted = {}
    found = {fit.architecture: fit for fit in fits(given_names, SMALL, said)}
    assert {key: (fit.shape, fit.size_open) for key, fit in found.items()} == wanted
    for other, fit in found.items():
        assert fit.classes == classes
        if other == name:
            assert fit.match.by_name == (changed in ("nothing", "order"))
            assert fit.match.state.keys() == state.keys()
            assert all(fit.match.state[key] is state[key] for key in state)


@pytest.mark.parametrize("order", ["own", "turned", "renamed"])
def test_what_does_not_fit_is_said_by_name_or_else_by_order(order: str) -> None:
    with torch.device("meta"):
        state = build("mlp", shape=(1, 16, 16), classes=3).state_dict()
    names = list(state) if order == "own" else [*list(state)[2:4], *list(state)[:2], *list(state)[4:]]
    state = {str(n) if order == "renamed" else key: state[key] for n, key in enumerate(names)}
    assert "'layers.1.weight' is 256x256 where 256x225 is wanted" in misfit(state, "mlp", (1, 15, 15))
    assert "28x28" in misfit(state, "mlp") and "256x784" in misfit(state, "mlp")
    with torch.device("meta"):
        coloured = build("lenet", shape=(3, 9, 9), classes=3).state_dict()
    assert "on 3x32x32 images" in misfit(coloured, "lenet")
    with torch.device("meta"):
        alike = build("mlp", shape=(1, 16, 16), classes=3).state_dict()
    told = misfit({reworded(key): tensor for key, tensor in alike.items()}, "mlp", (1, 16, 16))
    assert "'layers.1.weight'" in told and "'layers.3.weight'" in told
    del state[next(iter(state))]
    assert "5 tensors where 6 are wanted" in misfit(state, "mlp", (1, 16, 16))


def test_the_first_convolution_says_the_channels_unless_a_matrix_comes_first() -> None:
    dense, convolutions = (
        torch.zeros(4, 5),
        {channels: torch.zeros(8, channels, 3, 3) for channels in (1, 3, 7)},
    )
    for tensors, wanted in (
        *(([convolutions[1]], [1]), ([convolutions[3]], [3]), ([convolutions[7]], [1, 3]), ([], [1, 3])),
        *(([torch.zeros(4), convolutions[3]], [3]), ([dense, convolutions[3]], [1, 3])),
    ):
        found = _shapes({str(k): tensor for k, tensor in enumerate(tensors)})
        assert found == [(channels, size, size) for channels in wanted for size in SIZES[channels]]


def test_a_single_number_says_nothing_of_the_classes() -> None:
    state = {"head": torch.tensor(1.0), "last": torch.zeros(5), "scale": torch.tensor(2.0)}
    assert classes_in(state, lambda classes: {"head": torch.Size([classes])}) == 5


@pytest.mark.parametrize("rename", ["wrapped", "numbered", "no counters"])
def test_other_names_fit(rename: str, make: Any, tmp_path: Path) -> None:
    model = make("resnet18-cifar", shape=(3, 16, 16))
    state = model.network.state_dict()
    if rename == "wrapped":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif rename == "numbered":
        state = {renumbered(name): tensor for name, tensor in state.items()}
    else:
        state = {name: tensor for name, tensor in state.items() if tensor.dim() > 0}
    torch.save(state, tmp_path / "m.pt")
    found = load_model(tmp_path / "m.pt")
    assert ("weights-by-shape" in {note.code for note in found.notes}) == (rename == "numbered")
    assert found.card.shape == (3, 32, 32)
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
    assert "weights-by-shape" not in {note.code for note in found.notes}


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
    with pytest.raises(ConfigError, match="lenet, lenet-twin"):
        load_model(path)
    assert load_model(path, arch=twin).card.architecture == twin
    for arch in ("madry-cnn", "resnet18-cifar", "trunk-classifier", "lenett"):
        with pytest.raises(ConfigError if arch == "lenett" else ModelError):
            load_model(path, arch=arch)
    torch.save(torch.nn.Conv1d(3, 4, 5).state_dict(), path)
    with pytest.raises(ModelError, match="small-cnn"):  # of what was tried
        load_model(path)


@pytest.mark.parametrize("arch", ["torchvision:squeezenet1_1", "small-cnn"])
def test_the_head_says_the_classes_wherever_it_is_in_the_file(arch: str, make: Any, tmp_path: Path) -> None:
    shape = (3, 32, 32)
    made = make(arch, shape=shape, classes=7) if arch == "small-cnn" else None
    network = (made or load_model(arch, weights="none", classes=7, shape=shape)).network.eval()
    torch.save(dict(sorted(network.state_dict().items(), reverse=True)), tmp_path / "shuffled.pt")
    read, x = load_model(tmp_path / "shuffled.pt", arch=arch, shape=shape).eval(), torch.rand(2, *shape)
    assert read.card.classes == 7 and torch.equal(read(x), network(x))


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
