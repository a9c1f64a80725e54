"""Adversarial examples without an original, and the judge's word on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advkit.commands.unrestricted import run as unrestricted
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.gan.judge import DIGITS, FILE
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.load import wrap
from advkit.models.model import Model, weights_hash
from advkit.models.network import build
from advkit.trained_attacks.latent.unrestricted import construct
from advkit.trained_attacks.latent.unrestricted_result import UnrestrictedResult
from advkit.trained_attacks.latent.unrestricted_settings import Unrestricted, UnrestrictedSettings

INNER = {"generator": "mlp-gan-generator", "generator_config": {"latent_dim": 3, "hidden": [16]}}


def built(role, arch, classes=10, labels=(), **config):
    with rng.scope("cpu", 0, "unrestricted"):
        network = build(arch, shape=(1, 8, 8), classes=classes, config=config)
    about = {"role": role, "architecture": arch, "config": config, "classes": classes, "labels": labels}
    return Model(network, ModelCard(**about, shape=(1, 8, 8))).eval()


class Bright(nn.Module):
    """Two classes, by whether an image is brighter than ``bar``."""

    def __init__(self, bar):
        super().__init__()
        self.bar = nn.Parameter(torch.tensor(bar))

    def forward(self, x):
        score = 50 * (x.flatten(1).mean(1) - self.bar)
        return torch.stack([-score, score], 1)


@pytest.fixture
def pair():
    """A generator of two classes, a dark and a bright one, and a classifier that tells dark from bright."""
    generator = built("generator", "conditional-generator", 2, **INNER)
    with torch.no_grad():
        for parameter in generator.network.generator.parameters():
            parameter.mul_(1.5)
        generator.network.embedding.weight.copy_(0.4 * rng.normal(torch.arange(1, 3), (50,)))
        z = generator.network.draw(rng.keys(1, "z", torch.arange(200)))
        first, second = (generator(z, torch.full((200,), label)).mean() for label in (0, 1))
        if first > second:
            generator.network.embedding.weight.copy_(generator.network.embedding.weight.flip(0))
    return wrap(Bright(float(first + second) / 2), shape=(1, 8, 8)).eval(), generator


@pytest.mark.parametrize("search", ["gradient", "monte-carlo"])
def test_what_is_found_is_of_the_class_asked_for_and_misleads(search, pair):
    model, generator = pair
    before = weights_hash(generator.state_dict()), weights_hash(model.state_dict())
    config = UnrestrictedSettings(search=search, passes=80, near=0.1)
    made = construct(model.train(), generator.train(), 20, config)
    assert model.training and generator.training
    assert before == (weights_hash(generator.state_dict()), weights_hash(model.state_dict()))
    assert all(parameter.grad is None for parameter in [*model.parameters(), *generator.parameters()])
    model.eval(), generator.eval()
    assert made.labels.tolist() == [0, 1] * 10
    with torch.no_grad():
        torch.testing.assert_close(generator(made.latent, made.labels), made.images)
        assert torch.equal(model(made.images).argmax(1), made.said)
    assert torch.equal(made.start_said, made.labels)
    assert torch.equal(made.found, made.said != made.labels)
    assert made.found.sum() > (15 if search == "gradient" else 4)
    assert (made.passes[~made.found] == 80).all() and (made.passes[made.found] > 1).all()
    if search == "gradient":
        assert (made.passes[made.found] % 2 == 1).all()
    few = construct(model, generator, 6, config)
    assert few.found.tolist() == made.found[:6].tolist()
    torch.testing.assert_close(few.latent, made.latent[:6], rtol=1e-3, atol=1e-4)


def test_the_weights_do_what_they_say(pair):
    model, generator = pair
    latents = {}
    for near in (0.0, 5.0):
        made = construct(model, generator, 20, UnrestrictedSettings(passes=60, near=near))
        first = generator.network.draw(rng.keys(0, "unrestricted", torch.arange(20)))
        latents[near] = (made.latent - first).abs()[made.found].max()
    assert latents[5.0] < 0.5 * latents[0.0]
    never = construct(model, generator, 20, UnrestrictedSettings(passes=60), auxiliary=model)
    assert not never.found.any() and (never.passes == 60).all()  # who is misled does not keep the class
    aimed = construct(model, generator, 10, UnrestrictedSettings(passes=60, near=0.1), target=1)
    assert aimed.labels.tolist() == [0] * 10 and aimed.found.any()
    assert (aimed.said[aimed.found] == 1).all()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a classifier of digits, generators and a discriminator that knows classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    save_model(built("generator", "conditional-generator", labels=DIGITS, **INNER), "gen.pt")
    save_model(built("generator", "mlp-gan-generator", None, hidden=[8]), "plain.pt")
    save_model(built("classifier", "mlp", hidden=()), "clf.pt")
    trunk = {"trunk": "conv-gan-discriminator", "trunk_config": {"channels": [4, 8]}}
    save_model(built("discriminator", "auxiliary-discriminator", **trunk), "aux.pt")


TOY = Unrestricted(model="clf.pt", generator="gen.pt", n=20, passes=20, search="monte-carlo")


@pytest.mark.usefixtures("here")
def test_the_product_is_what_counts():
    outcome = unrestricted(TOY, Context(out=Path("run")))
    result = UnrestrictedResult.load("run")
    assert result.as_values() == outcome.result and len(result.examples) == result.n == 20
    assert result.found == sum(each.found for each in result.examples) > 0
    assert result.legitimate == sum(each.found and each.judged == each.label for each in result.examples)
    assert result.success == pytest.approx(result.raw_success * result.legitimacy)
    assert result.start_wrong == sum(each.start_said != each.label for each in result.examples)
    assert result.raw_interval[0] < result.raw_success <= result.raw_interval[1]
    saved = np.load("run/unrestricted.npz")
    assert saved["found"].sum() == result.found and saved["x"].shape == (20, 1, 8, 8)
    assert all(picture.path.read_bytes()[:4] == b"\x89PNG" for picture in outcome.pictures)
    assert unrestricted(TOY, Context(out=Path("run"))).result == outcome.result
    assert outcome.next[0] == "advkit unrestricted --model=clf.pt --generator gen.pt --search gradient"
    kept = unrestricted(
        TOY.model_copy(update={"auxiliary": "aux.pt", "target": "3"}), Context(out=Path("aux"))
    )
    assert all(each["said"] == 3 != each["label"] for each in kept.result["examples"] if each["found"])
    assert kept.result["target_name"] == "3" and kept.result["found"] < result.found


@pytest.mark.usefixtures("here")
def test_faults_are_told_before_the_work_begins():
    def fails(error, match, **said):
        with pytest.raises(error, match=match):
            unrestricted(TOY.model_copy(update=said), Context())

    save_model(built("classifier", "mlp", 7, hidden=()), "seven.pt")
    save_model(built("discriminator", "conv-gan-discriminator", None), "judge.pt")
    save_model(built("generator", "conditional-generator", **INNER), "things.pt")
    fails(ModelError, r"7 classes.*10", model="seven.pt")
    fails(ModelError, r"unconditional", generator="plain.pt")
    fails(DataError, r"things\.pt", generator="things.pt")
    fails(ConfigError, r"clf\.pt", auxiliary="clf.pt")
    fails(ConfigError, r"judge", auxiliary=str(FILE))
    fails(ModelError, r"judge\.pt", auxiliary="judge.pt")
    fails(ModelError, r"7", auxiliary="seven.pt")
    fails(ConfigError, r"'x'", target="x")
    assert unrestricted(TOY, replace(Context(), dry_run=True)).result == {"n": 20, "passes": 400}
    assert not Path("runs").exists()
