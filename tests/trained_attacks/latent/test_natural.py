"""Search in latent space, and the judge's word on what it finds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advkit.commands.natural import run as natural
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import DataError
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.load import wrap
from advkit.models.model import Model
from advkit.models.network import build
from advkit.trained_attacks.latent.natural import extent, search_latent
from advkit.trained_attacks.latent.natural_result import NaturalResult
from advkit.trained_attacks.latent.natural_settings import Natural, NaturalSettings

CONFIG = NaturalSettings(rings=10, samples=30, radius=1.0)


def built(role, arch, classes=None, **config):
    with rng.scope("cpu", 0, "natural"):
        network = build(arch, shape=(1, 8, 8), classes=classes, config=config)
    about = {"role": role, "architecture": arch, "config": config, "classes": classes}
    return Model(network, ModelCard(**about, shape=(1, 8, 8))).eval()


class Half(nn.Module):
    """Two classes, by whether an image is brighter than ``bar``."""

    def __init__(self, bar):
        super().__init__()
        self.bar = nn.Parameter(torch.tensor(bar))

    def forward(self, x):
        score = x.flatten(1).mean(1) - self.bar
        return torch.stack([-score, score], 1)


def test_the_nearest_found_is_wrong_and_within_the_radius():
    generator = built("generator", "mlp-gan-generator", latent_dim=3, hidden=(16,), dropout=0.0)
    with torch.no_grad():
        latent = generator.network.draw(rng.keys(0, "z", torch.arange(12)))
        bright = generator(latent).mean((1, 2, 3))
    model = wrap(Half(float(bright.median())), shape=(1, 8, 8)).eval()
    labels = (bright > float(bright.median())).long()
    found = search_latent(model, generator, latent, labels, CONFIG, ids=torch.arange(12))
    assert found.found.sum() >= 6
    with torch.no_grad():
        assert torch.equal(model(found.images).argmax(1), found.said)
        torch.testing.assert_close(generator(found.latent), found.images)
    assert torch.equal(found.found, found.said != labels)
    far = (found.latent - latent).norm(dim=1) / extent(generator.network, 0)
    torch.testing.assert_close(far, found.distance, rtol=1e-3, atol=1e-4)
    assert (found.distance[found.found] > 0).all() and found.distance.max() <= 1.001
    rings = (found.distance[found.found] * 10).floor() + 1
    assert torch.equal(found.queries[found.found], (30 * rings).long())  # it ends in the ring of its success
    assert (found.queries[~found.found] == 300).all()
    again = search_latent(model, generator, latent[4:6], labels[4:6], CONFIG, ids=torch.arange(4, 6))
    assert again.found.tolist() == found.found[4:6].tolist()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a classifier of digits, a generator and twelve images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    save_model(built("generator", "mlp-gan-generator", latent_dim=4, hidden=(8,), dropout=0.0), "gen.pt")
    model = built("classifier", "mlp", 10, hidden=())
    save_model(model, "clf.pt")
    x = rng.uniform(torch.arange(12), (1, 8, 8))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 10
    np.savez("toy.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=[str(d) for d in range(10)])


TOY = Natural(
    model="clf.pt", generator="gen.pt", data="npz:toy.npz", n=12, steps=3, restarts=1, rings=3, samples=8
)


@pytest.mark.usefixtures("here")
def test_the_product_is_what_counts():
    outcome = natural(TOY, Context(out=Path("run")))
    result = NaturalResult.load("run")
    assert result.as_values() == outcome.result
    assert (result.n, result.clean_correct, len(result.images)) == (12, 11, 11)
    assert result.found == sum(image.found for image in result.images)
    assert result.legitimate == sum(image.found and image.judged == image.label for image in result.images)
    assert result.success == pytest.approx(result.raw_success * result.legitimacy)
    assert all(image.said != image.label for image in result.images if image.found)
    saved = np.load("run/natural.npz")
    assert saved["found"].sum() == result.found > 0 and saved["x"].shape == (11, 1, 8, 8)
    assert Path("run/examples.png").read_bytes()[:4] == b"\x89PNG"
    assert natural(TOY, Context(out=Path("run"))).result == outcome.result


@pytest.mark.usefixtures("here")
def test_faults_are_told_before_the_work_begins():
    stored = dict(np.load("toy.npz"))
    stored["class_names"] = [f"thing {d}" for d in range(10)]
    np.savez("things.npz", **stored)
    with pytest.raises(DataError, match="--data"):
        natural(TOY.model_copy(update={"data": "npz:things.npz"}), Context())
    told = natural(TOY, replace(Context(), dry_run=True)).result
    assert told == {"n": 11, "inverting": 44, "searching": 264}
    assert not Path("runs").exists()
