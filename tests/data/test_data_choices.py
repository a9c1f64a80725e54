"""In which order, under which threat model and with which models data is worked on."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.data.dataset import Part
from advkit.data.load import as_data
from advkit.data.subjects import flags, open_subjects
from advkit.data.threats import choose, default_threat
from advkit.evaluation.settings import Evaluation
from advkit.models.card import DataFacts, ModelCard, ThreatFacts
from advkit.models.checkpoint import save_model
from advkit.models.foreign_settings import ForeignModel
from advkit.models.model import Model
from advkit.models.network import build
from advkit.trained_attacks.universal.settings import PatchTraining


@settings(max_examples=40)
@given(n=st.integers(1, 12), size=st.integers(1, 30), seed=st.integers(0, 3))
def test_epochs_are_permutations_cut_into_batches(n: int, size: int, seed: int) -> None:
    epochs = -(-4 * size // n)
    batches = [Order(n, size, seed).batch(step) for step in range(4)]
    assert [len(batch) for batch in batches] == [size] * 4
    whole = torch.cat([Order(n, n, seed).batch(epoch) for epoch in range(epochs)])
    assert torch.equal(torch.cat(batches), whole[: 4 * size])
    assert all(sorted(epoch.tolist()) == list(range(n)) for epoch in whole.split(n))
    back = Order(n, size, seed)
    assert all(torch.equal(back.batch(step), batches[step]) for step in (3, 0, 2))


def test_orders_differ_from_epoch_to_epoch_and_by_seed() -> None:
    first = Order(50, 50, 0)
    assert len({tuple(each.batch(0).tolist()) for each in (first, Order(50, 50, 1))}) == 2
    assert not torch.equal(first.batch(0), first.batch(1))


def made(**facts: object) -> Model:
    network = build("mlp", shape=(1, 4, 4), classes=3, config={"hidden": ()})
    about = {"role": "classifier", "architecture": "mlp", "config": {"hidden": ()}, "shape": (1, 4, 4)}
    return Model(network, ModelCard(**about, classes=3, **facts)).eval()  # type: ignore[arg-type]


def images(threat: Threat | None = None) -> Data:
    data = as_data(torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    return replace(data, threat=threat)


HARDENED, USUAL = ("l2", 0.7), Threat("linf", 0.2)


@pytest.mark.parametrize(
    ("norm", "eps", "hardened", "usual", "chosen"),
    [
        ("l1", 3.0, HARDENED, USUAL, ("l1", 3.0)),
        (None, None, HARDENED, USUAL, HARDENED),
        (None, None, None, USUAL, ("linf", 0.2)),
        (None, 0.5, HARDENED, USUAL, ("l2", 0.5)),
        ("l2", None, HARDENED, USUAL, HARDENED),
        ("linf", None, HARDENED, USUAL, None),
        ("l2", None, None, USUAL, None),
        ("linf", 0.1, None, None, ("linf", 0.1)),
        (None, 0.1, None, None, None),
        (None, 8.0, None, USUAL, None),
    ],
)
def test_half_a_threat_is_completed(heard, norm, eps, hardened, usual, chosen) -> None:  # type: ignore[no-untyped-def]
    model = made(**({"threat": ThreatFacts(norm=hardened[0], eps=hardened[1])} if hardened else {}))
    if chosen is None:
        with pytest.raises(ConfigError):
            choose(norm, eps, model, images(usual), heard)
        return
    assert choose(norm, eps, model, images(usual), heard) == Threat(*chosen)
    assert len(heard.said) == (0 if norm and eps else 1)  # what is assumed is said
    assert all(("trained against" in said) == (hardened is not None) for said in heard.said)
    assert all(("norm is" in said) == (eps is not None) for said in heard.said)  # only what was assumed
    if hardened or usual:
        assert default_threat(model, images(usual)) == (Threat(*hardened) if hardened else usual)


def test_flags_can_be_typed_again() -> None:
    assert flags(Evaluation(model="a.pt"), "digits") == "--model=a.pt --data=digits"
    said = ForeignModel(
        arch="mlp", shape=(3, 4, 5), pixel_range=(-1, 1), mean=(0.5,), outputs="probabilities"
    )
    config = PatchTraining(model=("a b.pt", "c"), target=0, **said.said)
    typed = shlex.split(flags(config, "npz:x y"))
    assert typed == [
        *("--model=a b.pt,c", "--data=npz:x y", "--arch=mlp", "--shape=3,4,5", "--pixel-range=-1.0,1.0"),
        *("--mean=0.5", "--outputs=probabilities"),
    ]


def test_subjects_come_with_the_data_they_learnt(heard: Any, tmp_path: Path) -> None:
    data = images()
    np.savez(tmp_path / "toy.npz", x=data.images[:].numpy(), y=data.labels.numpy())
    name = f"npz:{tmp_path / 'toy.npz'}"
    facts = DataFacts(name=name, split="train", fingerprint="0", n=6)
    for file, card in (("a.pt", {"data": facts}), ("b.pt", {})):
        save_model(made(**card), tmp_path / file)
    a, b = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")

    def opened(names: list[str], data: str | None = None) -> tuple[list[Model], list[Data]]:
        return open_subjects(
            Evaluation(model=names[0], data=data),
            Context(progress=heard, device="cpu"),
            "train",
            "test",
            transfer=names[1:],
        )

    models, found = opened([a, b])
    assert len(models) == 2 and [each.fingerprint for each in found] == [data.fingerprint] * 2
    undivided = f"{name}: {found[1].notes[0]}"
    assert name in heard.said[0] and heard.said[1:] == [undivided] * 2
    models, found = opened([b], name)
    assert len(models) == 1 and len(found) == 2 and heard.said[3:] == [undivided]
    with pytest.raises(ConfigError):
        opened([b])


@pytest.mark.parametrize(
    ("splits", "evaluated", "noted"),
    [(("train", "test"), True, 0), (("train",), False, 0), (("train",), True, 1), (("test",), True, 0)],
)
def test_only_numbers_on_images_that_the_model_learnt_are_qualified(
    heard: Any, splits: tuple[Part, ...], evaluated: bool, noted: int
) -> None:
    config = Evaluation(model="advkit:digits-standard", data="digits")
    open_subjects(config, Context(progress=heard, device="cpu"), *splits, evaluated=evaluated)
    assert len(heard.said) == noted
