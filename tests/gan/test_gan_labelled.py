"""Generated images with classes, from a conditional generator or told by a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advkit.commands import gan_sample as command
from advkit.commands.gan_sample import run as sample
from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.data.load import load_data
from advkit.gan import labelled
from advkit.gan.labelled import sample_labelled
from advkit.gan.sample import BATCH
from advkit.gan.sample import sample as draw
from advkit.gan.settings import Sampling
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import Generator


class Grey(Generator):
    """Every image is of one grey: its class's where it is conditional, else that of its latent number."""

    latent_dim = 1

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        shade = z.abs().clamp(0, 1) if labels is None else labels[:, None] / 4 + 0.1
        return shade[:, :, None, None].expand(-1, *self.shape)


class Reader(torch.nn.Module):
    """Tells the quarter of the grey scale; less sure near its borders."""

    def forward(self, x: Tensor) -> Tensor:
        centres = torch.tensor([0.125, 0.375, 0.625, 0.875])
        return -((x.mean((1, 2, 3))[:, None] - centres) ** 2) * 300


def model(network: Any, role: str, classes: int | None, shape=(1, 2, 2)) -> Model:
    network.weight = torch.nn.Parameter(torch.zeros(1))
    return Model(network, ModelCard(role=role, architecture="toy", shape=shape, classes=classes))


@pytest.fixture
def grey():
    return model(Grey(StrictModel(), shape=(1, 2, 2)), "generator", None)


@pytest.fixture
def conditional():
    return model(Grey(StrictModel(), shape=(1, 2, 2), classes=4), "generator", 4)


@pytest.fixture
def reader():
    return model(Reader(), "classifier", 4)


def test_a_conditional_generator_draws_its_classes_in_turn_or_those_asked_for(conditional):
    images, _ = draw(conditional, 6)
    levels = [26, 89, 153, 217]
    assert images[:, 0, 0, 0].tolist() == [*levels, *levels[:2]]
    asked = torch.arange(BATCH + 7).flip(0) % 4
    images, latents = draw(conditional, BATCH + 7, labels=asked)
    assert images[:, 0, 0, 0].tolist() == [levels[label] for label in asked]
    assert torch.equal(latents[:6], draw(conditional, 6)[1])


def test_labels_that_cannot_be_drawn(conditional, grey):
    with pytest.raises(ModelError):
        draw(grey, 2, labels=torch.zeros(2, dtype=torch.int64))
    for labels in (torch.zeros(3, dtype=torch.int64), torch.tensor([0, 4])):
        with pytest.raises(DataError):
            draw(conditional, 2, labels=labels)


def test_sure_images_of_every_class_in_the_order_they_were_drawn(grey, reader):
    found = sample_labelled(grey, reader, 42, confidence=0.9, seed=3)
    assert found.labels.bincount().tolist() == [11, 11, 10, 10]
    assert torch.equal(found.labels, found.images[:, 0, 0, 0].long() * 4 // 256)
    with torch.no_grad():
        probability = reader(found.images / 255).softmax(1).max(1).values
    assert probability.min() >= 0.9
    every, latents = draw(grey, found.drawn, seed=3)
    rows = [int((latents == latent).nonzero()[0, 0]) for latent in found.latents]
    assert rows == sorted(rows)
    assert torch.equal(every[rows], found.images)
    likely = reader(every / 255).softmax(1).max(1)
    first = [row for row in range(found.drawn) if likely.values[row] >= 0.9 and likely.indices[row] == 1][:11]
    assert [row for row in rows if likely.indices[row] == 1] == first


def test_a_conditional_generators_class_must_be_seen_by_the_classifier(conditional, reader, monkeypatch):
    found = sample_labelled(conditional, reader, 8, confidence=0.5)
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    monkeypatch.setattr(Grey, "forward", lambda self, z, labels: torch.full((len(z), 1, 2, 2), 0.1))
    with pytest.raises(DataError, match=r"0 .*1 .*0\.5 .*2"):
        sample_labelled(conditional, reader, 8, confidence=0.5)


def test_a_class_that_is_never_drawn_is_said(grey, reader, monkeypatch):
    monkeypatch.setattr(labelled, "TRIES", 2)
    monkeypatch.setattr(Grey, "draw", lambda self, keys: torch.full((len(keys), 1), 0.4))
    with pytest.raises(DataError, match=r"100 .*0 .*0 "):
        sample_labelled(grey, reader, 40, confidence=0.5)


def test_models_that_do_not_belong_together(grey, conditional, reader):
    with pytest.raises(ConfigError):
        sample_labelled(grey, reader, 3, confidence=0.5)
    for generator, other in ((grey, (4, (1, 3, 3))), (conditional, (5,))):
        with pytest.raises(ModelError):
            sample_labelled(generator, model(Reader(), "classifier", *other), 8, confidence=0.5)


@pytest.fixture
def named(grey, conditional, reader, monkeypatch):
    known = {"grey": grey, "conditional": conditional, "reader": reader}
    monkeypatch.setattr(command, "load_model", lambda name, **more: known[name])


@pytest.mark.parametrize(
    "values", [{"model": "conditional", "labels": True}, {"model": "grey", "classifier": "reader"}]
)
def test_the_file_is_a_data_set(values, named):
    sample(Sampling(n=20, **values), Context(out=Path("more.npz")))
    data = load_data("npz:more.npz", "train")
    assert data.labels.bincount().tolist() == [5] * 4 and data.shape == (1, 2, 2)
    with np.load("more.npz") as arrays:
        assert (arrays["x"].dtype, arrays["y"].dtype, arrays["z"].shape) == (np.uint8, np.int64, (20, 1))


def test_an_unconditional_generator_has_no_labels(named):
    with pytest.raises(ConfigError):
        sample(Sampling(model="grey", labels=True), Context(out=Path("more.npz")))
    sample(Sampling(model="grey", n=4), Context(out=Path("more.npz")))
    with np.load("more.npz") as arrays:
        assert sorted(arrays) == ["x", "z"]
