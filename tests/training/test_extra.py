"""Extra images: their share of every batch, their ids, resume, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.commands import adv_train as command
from advkit.commands.adv_train import run as adv_train
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError
from advkit.core.runs import RunFolder
from advkit.data.load import as_data, load_data
from advkit.training.extra import FIRST, Mixed, count, fitting, load_extra
from advkit.training.loop import fit
from advkit.training.settings import AdversarialTraining, Fitting

CONFIG = Fitting(epochs=4, batch_size=20, checks=4, seed=5, extra_fraction=0.3, extra_data="npz:extra.npz")


@pytest.fixture
def extra(digits):
    """30 images that are white where the digits are black."""
    return fitting(as_data(255 - digits.images[:30], digits.labels[:30], "white"), digits)


def save(images, labels, **more):
    np.savez("extra.npz", x=np.asarray(images), y=np.asarray(labels), **more)


def test_a_fixed_share_of_every_batch_is_extra_and_all_of_it_comes_in_turn(digits, extra):
    mixed = Mixed(CONFIG, digits, extra)
    seen, own = [], []
    for step in range(10):
        x, y, ids = mixed.batch(step, torch.device("cpu"))
        assert len(x) == 20
        others = ids >= FIRST
        assert others.sum() == 6
        assert torch.equal(x[others], extra.batch(ids[others] - FIRST)[0])
        assert torch.equal(y[others], extra.labels[ids[others] - FIRST])
        assert torch.equal(x[~others], digits.batch(ids[~others])[0])
        seen.append(ids[others] - FIRST)
        own.append(ids[~others])
    assert torch.cat(seen).bincount().tolist() == [2] * 30
    assert torch.cat(own)[:100].sort().values.tolist() == list(range(100))


def test_an_interrupted_run_with_extra_images_ends_the_same(
    digits, extra, make, objective, interrupted, same, tmp_path
):
    def train(folder, progress=None):
        with RunFolder.open("test", "toy", CONFIG, tmp_path / folder) as run:
            more = {"progress": progress} if progress else {}
            return fit(make(), CONFIG, digits, objective=objective("standard"), extra=extra, run=run, **more)

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("cut", interrupted(2))
    assert same(train("cut").model, whole.model)
    without = fit(make(), CONFIG, digits, objective=objective("standard"))
    assert without.step == whole.step and not same(without.model, whole.model)


def test_adv_train_takes_them_and_notes_what_they_were(digits, monkeypatch):
    monkeypatch.setattr(command, "TESTED", 20)
    train = load_data("digits", "train", limit=50)
    save(train.images, train.labels)
    values = {"objective": "standard", "arch": "mlp", "epochs": 1, "checks": 1, "extra_data": "npz:extra.npz"}
    config = validate(AdversarialTraining, values, "test")
    outcome = adv_train(config, Context(out=Path("run")))
    inputs = json.loads(Path("run/resolved.json").read_text(encoding="utf-8"))["inputs"]
    assert inputs["extra images"] == load_data("npz:extra.npz", "train").fingerprint
    assert outcome.result["card"]["training"]["extra_fraction"] == 0.3
    save(255 - train.images, train.labels)
    with pytest.raises(ConfigError):
        adv_train(config, Context(out=Path("run")))


def test_a_share_leaves_an_image_of_both_kinds():
    def counted(share, n=100):
        return count(CONFIG.model_copy(update={"extra_fraction": share}), n)

    assert (counted(0.05), counted(0.95)) == (1, 19)
    for share, n in ((0.01, 100), (0.9, 4)):
        with pytest.raises(ConfigError):
            counted(share, n)


@pytest.mark.parametrize(("side", "last", "names"), [(9, 3, None), (8, 10, None), (8, 1, ["cat", "dog"])])
def test_other_images_and_other_classes_are_refused(side, last, names, digits):
    assert load_extra(Fitting(), digits, None) is None
    save(np.zeros((2, 1, side, side)), [0, last], **({"class_names": names} if names else {}))
    with pytest.raises(DataError):
        load_extra(CONFIG, digits, None)
