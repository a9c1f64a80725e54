"""Natural and unrestricted adversarial examples: the search in latent space, and the judge's word on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advkit.commands.natural import run as natural
from advkit.commands.unrestricted import run as unrestricted
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.gan.judge import DIGITS, FILE
from advkit.models.checkpoint import save_model
from advkit.models.load import wrap
from advkit.models.model import weights_hash
from advkit.trained_attacks.latent.natural import extent, search_latent
from advkit.trained_attacks.latent.result import NaturalResult, UnrestrictedResult
from advkit.trained_attacks.latent.settings import (
    Natural,
    NaturalSettings,
    Unrestricted,
    UnrestrictedSettings,
)
from advkit.trained_attacks.latent.unrestricted import construct

INNER = {"generator": "mlp-gan-generator", "generator_config": {"latent_dim": 3, "hidden": [16]}}
CLASSIFIER = ("mlp", "classifier", 10)
CONDITIONAL = ("conditional-generator", "generator", 10)
NATURAL = Natural(
    model="clf.pt", generator="plain.pt", data="npz:toy.npz", n=12, steps=3, restarts=1, rings=3, samples=8
)
UNRESTRICTED = Unrestricted(model="clf.pt", generator="gen.pt", n=20, passes=20, search="monte-carlo")


class Bright(nn.Module):
    """Two classes, by whether an image is brighter than ``bar``."""

    def __init__(self, bar):
        super().__init__()
        self.bar = nn.Parameter(torch.tensor(bar))

    def forward(self, x):
        score = 50 * (x.flatten(1).mean(1) - self.bar)
        return torch.stack([-score, score], 1)


def test_the_nearest_found_is_wrong_and_within_the_radius(built):
    generator = built("mlp-gan-generator", "generator", latent_dim=3, hidden=(16,), dropout=0.0)
    with torch.no_grad():
        latent = generator.network.draw(rng.keys(0, "z", torch.arange(12)))
        bright = generator(latent).mean((1, 2, 3))
    model = wrap(Bright(float(bright.median())), shape=(1, 8, 8)).eval()
    labels = (bright > float(bright.median())).long()
    config = NaturalSettings(rings=10, samples=30, radius=1.0)
    found = search_latent(model, generator, latent, labels, config, ids=torch.arange(12))
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
    again = search_latent(model, generator, latent[4:6], labels[4:6], config, ids=torch.arange(4, 6))
    assert again.found.tolist() == found.found[4:6].tolist()


@pytest.fixture
def pair(built):
    """A generator of two classes, a dark and a bright one, and a classifier that tells dark from bright."""
    generator = built("conditional-generator", "generator", 2, seed=8, **INNER)
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
def here(own_places, built):
    """A folder with classifiers, generators, a discriminator that knows classes, and twelve images."""
    trunk = {"trunk": "conv-gan-discriminator", "trunk_config": {"channels": [4, 8]}}
    model = built(*CLASSIFIER, hidden=())
    save_model(model, "clf.pt")
    save_model(built("mlp", "classifier", 7, hidden=()), "seven.pt")
    save_model(built(*CONDITIONAL, about={"labels": DIGITS}, **INNER), "gen.pt")
    save_model(built(*CONDITIONAL, **INNER), "things.pt")
    save_model(built("mlp-gan-generator", "generator", latent_dim=4, hidden=[8], dropout=0.0), "plain.pt")
    save_model(built("auxiliary-discriminator", "discriminator", 10, **trunk), "aux.pt")
    save_model(built("conv-gan-discriminator", "discriminator"), "judge.pt")
    x = rng.uniform(torch.arange(12), (1, 8, 8))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 10
    for name, words in (("toy.npz", ""), ("things.npz", "thing ")):
        names = [f"{words}{digit}" for digit in range(10)]
        np.savez(name, x_train=x, y_train=y, x_test=x, y_test=y, class_names=names)


@pytest.mark.usefixtures("here")
def test_of_natural_examples_the_product_counts():
    outcome = natural(NATURAL, Context(out=Path("run")))
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


@pytest.mark.usefixtures("here")
def test_of_unrestricted_examples_the_product_counts():
    outcome = unrestricted(UNRESTRICTED, Context(out=Path("run")))
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
    assert outcome.next[0] == "advkit unrestricted --model=clf.pt --generator gen.pt --search gradient"
    config = UNRESTRICTED.model_copy(update={"auxiliary": "aux.pt", "target": "3"})
    kept = unrestricted(config, Context(out=Path("aux")))
    assert all(each["said"] == 3 != each["label"] for each in kept.result["examples"] if each["found"])
    assert kept.result["target_name"] == "3" and kept.result["found"] < result.found


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"model": "seven.pt"}, ModelError),
        ({"generator": "plain.pt"}, ModelError),
        ({"generator": "things.pt"}, DataError),
        ({"auxiliary": "clf.pt"}, ConfigError),
        ({"auxiliary": str(FILE)}, ConfigError),
        ({"auxiliary": "judge.pt"}, ModelError),
        ({"auxiliary": "seven.pt"}, ModelError),
        ({"target": "x"}, ConfigError),
        ({"data": "npz:things.npz"}, DataError),
    ],
    ids=str,
)
def test_faults_are_told_before_the_work_begins(said, fault):
    with pytest.raises(fault):
        if "data" in said:
            natural(NATURAL.model_copy(update=said), Context())
        else:
            unrestricted(UNRESTRICTED.model_copy(update=said), Context())
    assert not Path("runs").exists()


@pytest.mark.usefixtures("here")
def test_a_dry_run_counts_and_makes_nothing():
    dry = replace(Context(), dry_run=True)
    assert natural(NATURAL, dry).result == {"n": 11, "inverting": 44, "searching": 264}
    assert unrestricted(UNRESTRICTED, dry).result == {"n": 20, "passes": 400}
    assert not Path("runs").exists()
