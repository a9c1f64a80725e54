"""What a card accepts, what it makes of pixels and outputs, and what the content hash is of."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.errors import ConfigError, DataError
from advkit.models.card import ModelCard, Preprocessing
from advkit.models.labels import need_classes, need_labels
from advkit.models.match import Fit
from advkit.models.model import Model, content_hash, evaluation_mode, weights_hash
from advkit.models.network import ARCHITECTURES, build, generative, numbers, pairs, vaes
from advkit.models.store import Kin
from advkit.models.zoo import Pretrained

SOME = settings(max_examples=60)
CARD: dict[str, Any] = {"role": "classifier", "architecture": "tests:Net", "shape": (2, 1, 1), "classes": 2}


@SOME
@given(
    shape=st.tuples(*[st.integers(0, 3)] * 3),
    mean=st.lists(st.floats(-1, 1), max_size=4),
    std=st.lists(st.sampled_from([-1.0, 0.0, 0.5]), max_size=4),
    ends=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    labels=st.lists(st.just("a"), max_size=3),
    classes=st.none() | st.integers(1, 3),
)
def test_a_card_hangs_together_or_is_refused(
    shape: Any, mean: Any, std: Any, ends: Any, labels: Any, classes: int | None
) -> None:
    good = (
        min(shape) > 0
        and all(not values or len(values) == 1 or len(values) == shape[0] for values in (mean, std))
        and all(value > 0 for value in std)
        and ends[0] < ends[1]
        and (not labels or classes is None or len(labels) == classes)
    )
    with contextlib.nullcontext() if good else pytest.raises(ValueError, match=r"must|give one"):
        told = Preprocessing(pixel_range=ends, mean=tuple(mean), std=tuple(std))
        card = ModelCard(**{**CARD, "shape": shape, "classes": classes}, labels=labels, preprocessing=told)
        assert (card.version, card.schema_name) == (2, "advkit/model")


class Same(nn.Module):
    """Its pixels are its outputs."""

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        return x.flatten(1) if not labels else x.flatten(1) * labels[0][:, None]


@SOME
@given(
    x=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    ends=st.sampled_from([(0.0, 1.0), (0.0, 2.0), (0.0, 255.0), (-1.0, 1.0), (0.25, 0.5), (-0.5, 0.5)]),
    mean=st.sampled_from([(), (0.25,), (0.5, -0.25), (0.0, 0.0)]),
    std=st.sampled_from([(), (0.5,), (2.0, 0.25), (1.0, 1.0)]),
)
def test_pixels_are_stretched_then_normalised(x: Any, ends: Any, mean: Any, std: Any) -> None:
    card = ModelCard(**CARD, preprocessing=Preprocessing(pixel_range=ends, mean=mean, std=std))
    model = Model(Same(), card)
    pixels = np.array(x, dtype=np.float32).reshape(3, 2, 1, 1)
    wanted = pixels.reshape(3, 2).astype(np.float64) * (ends[1] - ends[0]) + ends[0]
    wanted = (wanted - np.array(mean or (0.0,))) / np.array(std or (1.0,))
    np.testing.assert_allclose(model(torch.tensor(pixels)), wanted, rtol=1e-5, atol=1e-4)
    twice = model(torch.tensor(pixels), torch.full((3,), 2.0))
    np.testing.assert_allclose(twice, 2 * wanted, rtol=1e-5, atol=2e-4)
    assert not model.state_dict()  # only the network's weights are a checkpoint's affair


def test_probabilities_become_their_logarithms() -> None:
    card = ModelCard(**CARD, preprocessing=Preprocessing(outputs="probabilities"))
    said = Model(Same(), card)(torch.tensor([0.0, 1.0, 1e-3, 0.25]).view(2, 2, 1, 1)).double()
    wanted = np.log([[1e-30, 1.0], [1e-3, 0.25]])
    np.testing.assert_allclose(said, wanted, rtol=1e-6)


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
SHAPES = st.sampled_from([(), (0,), (1,), (3,), (2, 3)])
STATES = st.dictionaries(
    st.sampled_from(["a", "a.weight", "b", "z"]),
    st.tuples(st.sampled_from(DTYPES), SHAPES, st.integers(0, 2**20)),
    min_size=1,
)


def tensors(drawn: Any) -> dict[str, Tensor]:
    found = {}
    for name, (dtype, shape, seed) in drawn.items():
        generator = torch.Generator().manual_seed(seed)
        found[name] = torch.randint(0, 2 if dtype == torch.bool else 99, shape, generator=generator).to(dtype)
    return found


@SOME
@given(drawn=STATES, data=st.data())
def test_the_hash_is_of_the_weights_and_of_nothing_else(drawn: Any, data: st.DataObject) -> None:
    state, card = tensors(drawn), ModelCard(**CARD)
    before = weights_hash(state), content_hash(card, state)
    name = data.draw(st.sampled_from(sorted(state)))
    tensor = state[name]
    strided = torch.stack([tensor, tensor], -1)[..., 0]
    for alike in (
        dict(reversed(state.items())),
        {**state, name: strided},
        {**state, name: nn.Parameter(tensor) if tensor.is_floating_point() else tensor},
    ):
        assert (weights_hash(alike), content_hash(card, alike)) == before
    others = [{**state, "new": tensor}, {key: state[key] for key in state if key != name}]
    others += [{**others[1], f"{name}x": tensor}, {**state, name: tensor[None]}]
    others += [{**state, name: tensor.view(torch.float16)}] if tensor.dtype == torch.bfloat16 else []
    if tensor.numel():
        flipped = tensor.clone().contiguous().view(-1).view(torch.uint8)
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1
        others.append({**state, name: flipped.view(tensor.dtype).view(tensor.shape)})
    for other in others:
        assert weights_hash(other) != before[0]
        assert content_hash(card, other) != before[1]


DETERMINES: dict[str, Any] = {
    "architecture": "tests:Other",
    "config": {"hidden": [1]},
    "shape": (2, 1, 2),
    "classes": 3,
    "preprocessing": Preprocessing(mean=(0.5,)),
}
TELLS: dict[str, Any] = {
    "role": "detector",
    "labels": ("a", "b"),
    "lineage": [{"relation": "ema-of", "hash": "ab"}],
    "data": {"name": "d", "split": "test", "fingerprint": "f", "n": 3},
    "threat": {"norm": "linf", "eps": 0.1},
    "training": {"seed": 1},
    "metrics": {"accuracy": 0.5},
    "accuracies": [
        {"name": "clean", "correct": 2, "data": {"name": "d", "split": "test", "fingerprint": "f", "n": 3}}
    ],
    "created": "now",
    "advkit": "0",
    "notes": "n",
}


def test_the_hash_is_of_what_the_card_says_of_the_function() -> None:
    assert DETERMINES.keys() | TELLS.keys() | {"version", "schema_name"} == ModelCard.model_fields.keys()
    state = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    first = content_hash(ModelCard(**CARD), state)
    # Names in people's stores: a change of these two makes every stored model another one.
    assert first == "7fab3034a01965ba40200166d007996310736f9d66a5f2cff4709162ddecb712"
    assert weights_hash(state) == "c23a60d449cebe49c126445eee8ff3cc988834ab829beffbcd2920288919e388"
    for name, value in TELLS.items():
        assert content_hash(ModelCard(**{**CARD, name: value}), state) == first
    hashes = {content_hash(ModelCard(**{**CARD, name: value}), state) for name, value in DETERMINES.items()}
    assert len(hashes - {first, weights_hash(state)}) == len(DETERMINES)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_are_put_back(fails: bool) -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()).eval())
    with pytest.raises(KeyError) if fails else contextlib.nullcontext(), evaluation_mode(network):
        assert not any(module.training for module in network.modules())
        if fails:
            raise KeyError
    assert [module.training for module in network.modules()] == [True, True, False, False]


@pytest.mark.parametrize("training", [False, True])
def test_recurrent_layers_compute_without_dropout_in_the_mode_of_cudnn(training: bool) -> None:
    with rng.scope("cpu", 0, "lstm"):
        layer, x = nn.LSTM(3, 4, num_layers=2, dropout=0.5), torch.rand(5, 2, 3)
    said = layer.eval()(x)[0]
    layer.train(training)
    with evaluation_mode(layer):
        assert layer.training and torch.equal(layer(x)[0], said)
    assert (layer.training, layer.dropout) == (training, 0.5)


def test_labels_of_a_conditional_network() -> None:
    for labels, n, classes in (([0, 2], 2, 3), ([], 0, 3), ([0], 1, 1)):
        told = torch.tensor(labels, dtype=torch.int64)
        assert need_labels(told, n, classes) is told
    for labels in ([0, 3], [-1, 0], [3, 3], [0, 0, 0], [[0, 1]], [0.0, 1.0], None):
        with pytest.raises(DataError):
            need_labels(labels if labels is None else torch.tensor(labels), 2, 3)
    elsewhere = torch.empty(2, dtype=torch.int64, device="meta")  # whose values cannot be looked at
    assert need_labels(elsewhere, 2, 3) is elsewhere
    assert [need_classes(n) for n in (1, 2)] == [1, 2]
    for wrong in (None, 0, -1):
        with pytest.raises(ConfigError):
            need_classes(wrong)


@pytest.mark.parametrize("kind", [Fit, Kin, Pretrained])
def test_what_is_found_is_not_changed(kind: Any) -> None:
    made = kind(*range(len(dataclasses.fields(kind))))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize(("name", "least"), [("mlp", 1), ("lenet", 4)])
def test_the_least_that_a_classifier_takes(name: str, least: int) -> None:
    sides = (least - 1, least, least + 1)
    for channels, height, width, classes in itertools.product((0, 1), sides, sides, (None, 0, 1, 2, 3)):
        good = channels and min(height, width) >= least and (classes or 0) >= 2
        with contextlib.nullcontext() if good else pytest.raises(ConfigError), torch.device("meta"):
            build(name, shape=(channels, height, width), classes=classes)


def test_lists_of_networks() -> None:
    roles = {entry.name: entry.facts["role"] for entry in ARCHITECTURES}
    assert vaes() == sorted(name for name, role in roles.items() if role == "vae")
    made = [name.removesuffix("-generator") for name, role in roles.items() if role == "generator"]
    assert pairs() == sorted(stem for stem in made if f"{stem}-discriminator" in roles)
    assert generative() == sorted(pairs() + vaes())
    batch_norm = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert numbers(batch_norm) == 3 * 2 + 2 + 4 * 2  # without the count of batches
