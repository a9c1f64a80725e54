"""The models that ship: each is what its card says, measured again here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import advkit
from advkit.cli import recipes
from advkit.core.errors import ConfigError, ModelError, UserError
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.models import shipped as module
from advkit.models.card import Accuracy, ModelCard
from advkit.models.header import read_card
from advkit.models.load import load_model
from advkit.models.shipped import FOLDER, SHIPPED, shipped

SIZE = 2_000_000


def card_of(name: str) -> ModelCard:
    card = read_card(shipped(name))
    assert card is not None
    return card


def measured(name: str) -> dict[str, Accuracy]:
    """By name, under the one threat model of the card."""
    found = card_of(name).accuracies
    assert len({one.name for one in found}) == len(found) and len({one.threat for one in found} - {None}) <= 1
    return {one.name: one for one in found}


def plain(values: Any) -> Any:
    """With the numbers that ``--set`` left as text."""
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    try:
        return float(values) if isinstance(values, str) else values
    except ValueError:
        return values


CLASSIFIERS = [name for name in SHIPPED if card_of(name).role == "classifier"]


def images_of(name: str) -> Data:
    """The images of which the card speaks, or a skip where they are not here."""
    facts = measured(name)["clean"].data
    root = os.environ.get("ADVKIT_DATA")
    if facts.name != "digits" and not root:
        pytest.skip("set ADVKIT_DATA to the folder with the data sets")
    data = load_data(facts.name, facts.split, root=Path(root) if root else None)  # type: ignore[arg-type]
    assert (data.fingerprint, len(data)) == (facts.fingerprint, facts.n)
    return data


def test_the_files_are_those_that_are_listed():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_small_and_made_by_its_recipe(name, store):
    """And is the same model in a store, where its weights are no longer float16."""
    path, model = shipped(name), load_model(f"advkit:{name}")
    assert path.stat().st_size <= SIZE
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert model.card == card_of(name)
    values = recipes.load(SHIPPED[name])[1].model_dump(mode="json", exclude_unset=True)
    chosen = {key: value for key, value in values.items() if value != "auto"}  # which a card has resolved
    assert plain(chosen).items() <= plain(model.card.training).items()
    assert store.add(model, name) == model.hash == store.get(name).hash


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_clean_accuracy_is_that_of_the_card(name):
    data, said = images_of(name), measured(name)
    model, right = load_model(f"advkit:{name}"), 0
    with torch.no_grad():
        for ids in torch.arange(len(data)).split(500):
            x, y = data.batch(ids)
            right += int((model(x).argmax(1) == y).sum())
    assert right == said["clean"].correct
    assert said.get("certified", said["robust"]).correct <= said["robust"].correct <= right
    assert card_of(name).threat in (None, said["robust"].threat)


def test_the_certified_accuracy_is_that_of_the_card():
    said = measured("digits-robust")["certified"]
    assert said.threat is not None
    threat = advkit.Threat(said.threat.norm, said.threat.eps)
    assert advkit.certify("advkit:digits-robust", "digits", threat).certified_correct == said.correct


def test_the_gan_draws_digits():
    run = advkit.gan_sample(model="advkit:digits-gan", n=9, out="digits.npz")
    assert run.figures["shape"] == [1, 8, 8] and card_of("digits-gan").metrics
    with pytest.raises(ModelError):
        load_model("advkit:digits-gan", role="classifier")


def test_names_that_are_refused(tmp_path):
    with pytest.raises(ModelError) as caught:
        load_model("advkit:digit-robust")
    assert caught.value.code == "model-not-found" and all(name in str(caught.value) for name in SHIPPED)
    weights = advkit.save_model(load_model("advkit:digits-standard"), tmp_path / "weights.pt")
    for more in ({"weights": "none"}, {"weights": weights}, {"arch": "mlp"}, {"weights_key": "state"}):
        with pytest.raises(UserError):
            load_model("advkit:digits-robust", **more)
    with pytest.raises(ConfigError):
        load_model("advkit:digits-robust", mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.99])
def test_a_damaged_file_is_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    content = bytearray(FOLDER.joinpath("digits-robust.safetensors").read_bytes())
    (tmp_path / "digits-robust.safetensors").write_bytes(content)
    load_model("advkit:digits-robust")
    content[int(place * len(content))] ^= 1
    (tmp_path / "digits-robust.safetensors").write_bytes(content)
    with pytest.raises(ModelError):
        load_model("advkit:digits-robust")
