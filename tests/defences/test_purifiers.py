"""Purifiers: what each does to images, and attacks that know of it."""

import io
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.attacks.ensemble import Stage
from advkit.commands.defence_eval import run as defence_eval
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.threat import Threat
from advkit.defences import defend as defending
from advkit.defences.defend import defend, unaveraged
from advkit.defences.purifier import DEFENCES, build
from advkit.defences.result import PurificationResult
from advkit.defences.settings import Purification
from advkit.gan.evaluation.subject import open_subject
from advkit.models import network as networks
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.model import Model

BALL = Threat("linf", 0.1)
JUDGING = Purification(
    model="clf.pt",
    data="npz:toy.npz",
    norm="linf",
    eps=0.02,
    defence="feature-squeezing",
    n=20,
    parameters={"pgd": {"steps": 4}},
)
GENERATOR = ("mlp-gan-generator", {"latent_dim": 3, "hidden": (8,)})
QUICK = {"defense-gan": {"restarts": 2, "steps": 3}}


def made(folder, role="generator", shape=(1, 8, 8), classes=None):
    """An untrained generator, or a VAE, opened."""
    name, config = ("conv-vae", {}) if role == "vae" else GENERATOR
    if classes is not None:
        name, config = "conditional-generator", {"generator": name, "generator_config": config}
    with rng.scope("cpu", 0, "generator"):
        network = networks.build(name, shape=shape, classes=classes, config=config)
    card = ModelCard(role=role, architecture=name, config=config, shape=shape, classes=classes)
    save_model(Model(network, card), folder / f"{role}.pt", overwrite=True)
    return open_subject(str(folder / f"{role}.pt"), "cpu")


def purifier(name, folder, **config):
    needs = DEFENCES.get(name).needs
    subject = None if needs is None else made(folder, needs)
    return build(name, {**QUICK.get(name, {}), **config}, subject, shape=(1, 8, 8), classes=3).eval()


@pytest.mark.parametrize("name", [entry.name for entry in DEFENCES])
def test_every_defence_makes_images_of_images_each_from_itself_alone(name, tmp_path, images):
    defence = purifier(name, tmp_path)
    x, _ = images[1].batch(torch.arange(16))
    with torch.no_grad():
        pure, other = defence(x), defence(x.flip(0)).flip(0)
    assert pure.shape == x.shape and pure.dtype == x.dtype
    assert pure.min() >= 0 and pure.max() <= 1
    assert not torch.equal(pure, x)
    assert not defence.random
    torch.testing.assert_close(pure, other, rtol=0, atol=1e-4)


def test_squeezing_and_compression_are_what_they_are_called(tmp_path, images):
    x, _ = images[1].batch(torch.arange(4))
    for bits in (1, 3):
        squeezed = purifier("feature-squeezing", tmp_path, bit_depth=bits)(x)
        torch.testing.assert_close(squeezed, (x * (2**bits - 1)).round() / (2**bits - 1))
    file = io.BytesIO()
    Image.fromarray((x[0, 0] * 255).round().to(torch.uint8).numpy()).save(file, "JPEG", quality=30)
    read = torch.from_numpy(np.array(Image.open(file))) / 255
    torch.testing.assert_close(purifier("jpeg", tmp_path, quality=30)(x)[0, 0], read, rtol=0, atol=2 / 255)


@pytest.mark.parametrize("name", [entry.name for entry in DEFENCES if "gradient" in entry.thing.ways])
def test_where_a_gradient_is_promised_there_is_one(name, tmp_path, images):
    x = images[1].batch(torch.arange(4))[0].requires_grad_(True)
    (slope,) = torch.autograd.grad(purifier(name, tmp_path)(x).square().sum(), x)
    assert slope.flatten(1).any(1).all()


def test_defense_gan_finds_what_the_generator_has_made(tmp_path):
    subject = made(tmp_path)
    latent = subject.generator.network.draw(rng.keys(5, "z", torch.arange(4)))
    with torch.no_grad():
        x = subject.generator(latent)
        spread = (x - x.mean(0)).square().mean()
        settings = {"restarts": 4, "steps": 60}
        pure = build("defense-gan", settings, subject, shape=(1, 8, 8), classes=3)(x)
    assert (pure - x).square().mean() < 0.2 * spread
    several = build(
        "defense-gan", {**settings, "steps": 3}, made(tmp_path, classes=3), shape=(1, 8, 8), classes=3
    )
    assert several.cost == 4 * 4 * 3 and several(x).shape == x.shape  # every class is tried


def test_fresh_starts_are_random_and_the_attack_is_told(tmp_path, images):
    defence = purifier("defense-gan", tmp_path, fresh=True)
    x, _ = images[1].batch(torch.arange(4))
    assert defence.random and not torch.equal(defence(x), defence(x))
    once = (Stage("pgd", "pgd", {}), Stage("square", "square", {}))
    assert unaveraged(defence, once, BALL) == ["pgd"]
    assert unaveraged(defence, (Stage("pgd", "pgd", {"samples": 5}),), BALL) == []
    assert unaveraged(purifier("defense-gan", tmp_path), once, BALL) == []


def test_who_knows_of_a_defence_has_all_that_others_have_found(model, images, tmp_path):
    config = JUDGING.model_copy(update={"defence": "vae", "parameters": {"pgd": {"steps": 4}}})
    shown = images[1].limit(16)
    with mock.patch.object(defending, "evaluate", wraps=defending.evaluate) as judged:
        result = defend(model, purifier("vae", tmp_path), shown, Threat("linf", 0.02), config)
    assert [call.kwargs["bpda"] for call in judged.call_args_list] == [(), ("purifier",)]
    assert [one.way for one in result.ways] == ["gradient through it", "BPDA"]
    assert result.adaptive <= min(result.unaware, *(one.left for one in result.ways))
    assert result.unaware <= result.purified_correct <= result.n == 16
    assert result.bare <= result.clean_correct == 16


def test_both_numbers_stand_in_one_sentence_and_a_finished_run_is_told_again(here):
    outcome = defence_eval(JUDGING, Context())
    result = PurificationResult.load(outcome.files[-1])
    sentence = outcome.sentences[0]
    shares = [f"{100 * count / result.n:.1f} %" for count in (result.adaptive, result.unaware)]
    assert sentence.index(shares[0]) <= sentence.index(shares[1])
    defended, bare = ([float(text.split()[0]) for text in row[-3:] if text] for row in outcome.tables[0].rows)
    shares = [5 * count for count in (result.adaptive, result.unaware, result.purified_correct)]  # of 20
    assert defended == pytest.approx(shares) and bare == [5 * result.bare, 5 * result.clean_correct]
    (unaware,), (one,) = outcome.tables[2].rows, result.attacks
    assert unaware[1] == str(one.fooled)
    if one.fooled:
        assert float(unaware[2].split()[0]) == pytest.approx(100 * one.recovered / one.fooled, abs=0.051)
    assert 0 < result.adaptive <= result.unaware <= result.purified_correct
    assert (outcome.files[-1] / "identity/verdicts.jsonl").exists()
    config = JUDGING.model_copy(update={"eps": 1e-7, "n": 4, "parameters": {"pgd": {"steps": 1}}})
    nobody = defence_eval(config, Context()).result
    assert nobody["attacks"][0]["fooled"] == 0
    assert nobody["adaptive"] == nobody["unaware"] == nobody["purified_correct"]


def test_a_random_defence_without_averaging_warns(here, tmp_path):
    made(tmp_path)
    said = {"defence": "defense-gan", "purifier": {"restarts": 1, "steps": 1, "fresh": True}, "n": 2}
    said |= {"generator": "generator.pt", "parameters": {"pgd": {"steps": 1}}}
    config = JUDGING.model_copy(update=said)
    with pytest.raises(ModelError):
        defence_eval(config.model_copy(update={"generator": "clf.pt"}), Context())
    assert defence_eval(config, Context(dry_run=True)).result["cost"] == 2
    outcome = defence_eval(config, Context())
    assert outcome.result["random"] and outcome.result["unaveraged"] == ["pgd"]
    assert outcome.warning


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        ("defense-gan", None),
        ("vae", None),
        ("jpeg", {}),
        ("vae", {}),
        ("defense-gan", {"shape": (1, 9, 9)}),
        ("defense-gan", {"classes": 7}),
        ("defence-gan", None),
    ],
)
def test_what_does_not_fit_is_refused(name, generator, tmp_path):
    subject = None if generator is None else made(tmp_path, **generator)
    with pytest.raises((ConfigError, DataError)):
        build(name, {}, subject, shape=(1, 8, 8), classes=3)
