"""From images back to latent vectors."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.commands.gan_invert import run as gan_invert
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.model import Model, weights_hash
from advkit.models.network import build
from advkit.trained_attacks.latent.invert import invert
from advkit.trained_attacks.latent.result import InversionResult
from advkit.trained_attacks.latent.settings import GanInversion, InversionSettings

SHORT = InversionSettings(steps=60, restarts=2)


def made(arch, classes=None, shape=(1, 8, 8), role="generator", **config):
    with rng.scope("cpu", 0, "inverted"):
        network = build(arch, shape=shape, classes=classes, config=config)
    about = {"role": role, "architecture": arch, "config": config, "classes": classes}
    return Model(network, ModelCard(**about, shape=shape)).eval()


@pytest.fixture
def dense():
    """A small generator, whose images differ."""
    model = made("mlp-gan-generator", latent_dim=3, hidden=(16,), dropout=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


@torch.no_grad()
def drawn(model, n=6, seed=5, *labels):
    return model(model.network.draw(rng.keys(seed, "drawn", torch.arange(n))), *labels)


def test_what_a_generator_made_is_found_again(dense):
    x = drawn(dense)
    found = invert(dense, x, config=SHORT)
    assert found.latent.shape == (6, 3) and found.start.unique().numel() == 2
    assert (found.error < 0.05 * found.start_error).all() and found.error.mean() < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(dense(found.latent), found.images)
    torch.testing.assert_close((found.images - x).square().mean((1, 2, 3)), found.error)


def test_the_best_of_all_starts_and_steps_is_kept(dense):
    """Beside a plain loop: Adam from every start of every image, its rate falling along half a cosine."""
    x = rng.uniform(torch.arange(3), (1, 8, 8))
    found = invert(
        dense, x, config=InversionSettings(steps=5, restarts=3, rate=0.5, seed=2), ids=torch.tensor([4, 7, 9])
    )
    for i, name in enumerate((4, 7, 9)):
        ends, starts = [], []
        for start in range(3):
            z = dense.network.draw(rng.keys(2, "invert", torch.tensor([name]), start)).requires_grad_(True)
            adam, errors = torch.optim.Adam([z]), []
            for step in range(6):
                error = (dense(z) - x[i]).square().mean()
                errors.append((error.item(), z.detach().clone()))
                adam.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * step / 5)) / 2
                (z.grad,) = torch.autograd.grad(error, z)
                adam.step()
            ends.append(min(errors, key=lambda each: each[0]))
            starts.append(errors[0][0])
        error, latent = min(ends, key=lambda each: each[0])
        assert found.start[i] == ends.index((error, latent)) and found.start_error[i].item() == pytest.approx(
            min(starts)
        )
        assert found.error[i].item() == pytest.approx(error, rel=1e-3)
        torch.testing.assert_close(found.latent[i], latent[0], rtol=0, atol=1e-2)


def test_more_starts_find_no_less_and_the_batch_does_not_matter(dense):
    x = rng.uniform(torch.arange(5), (1, 8, 8))
    one, four = (invert(dense, x, config=InversionSettings(steps=10, restarts=r)) for r in (1, 4))
    assert (four.error <= one.error + 1e-6).all() and (four.error < one.error - 1e-5).any()
    assert (one.error <= one.start_error).all()
    small = invert(dense, x, config=InversionSettings(steps=10, restarts=4, batch_size=3))
    torch.testing.assert_close(small.error, four.error, rtol=1e-3, atol=1e-5)
    again = invert(dense, x, config=InversionSettings(steps=10, restarts=4))
    assert torch.equal(again.latent, four.latent)
    other = invert(dense, x, config=InversionSettings(steps=10, restarts=4, seed=1))
    assert not torch.equal(other.latent, four.latent)


def test_a_conditional_generator_is_asked_for_the_class():
    model = made("conditional-generator", 3, generator="mlp-gan-generator", generator_config={"hidden": [16]})
    labels = torch.arange(6) % 3
    x = drawn(model, 6, 5, labels)
    before, mode = weights_hash(model.state_dict()), model.train().training
    right = invert(model, x, labels, SHORT)
    wrong = invert(model, x, (labels + 1) % 3, SHORT)
    assert right.error.mean() < wrong.error.mean()
    assert weights_hash(model.state_dict()) == before and model.training == mode
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(DataError, match="classes"):
        invert(model, x, config=SHORT)
    with pytest.raises(DataError, match=r"0 to 5.*3"):
        invert(model, x, torch.arange(6), SHORT)


def test_faults_are_told(dense):
    with pytest.raises(DataError, match=r"1x8x8.*1x9x9"):
        invert(dense, torch.zeros(1, 1, 9, 9))
    with pytest.raises(ModelError, match="generator"):
        invert(made("mlp", 3, role="classifier"), torch.zeros(1, 1, 8, 8))


@pytest.fixture
def here(tmp_path, monkeypatch, dense):
    """A folder with a generator, a VAE and images that the generator made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    save_model(dense, "gen.pt")
    save_model(made("conv-vae", role="vae"), "vae.pt")
    train, test = (drawn(dense, n, seed).numpy() for n, seed in ((20, 1), (5, 2)))
    labels = np.arange(20) % 2
    np.savez("toy.npz", x_train=train, y_train=labels, x_test=test, y_test=labels[:5])


TOY = GanInversion(model="gen.pt", data="npz:toy.npz", n=4, steps=40, restarts=2)


@pytest.mark.usefixtures("here")
def test_the_command_leaves_vectors_and_a_picture(dense):
    outcome = gan_invert(TOY, Context(out=Path("run")))
    result = InversionResult.load("run")
    assert result.as_values() == outcome.result and result.n == 4
    assert result.error < result.nearest_error and result.nearer >= 3 and result.error < result.start_error
    saved = np.load("run/latents.npz")
    with torch.no_grad():
        again = dense(torch.from_numpy(saved["latent"])).numpy()
    np.testing.assert_allclose(again, saved["reconstruction"], atol=1e-6)
    mean = ((saved["original"] - again) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(mean, [image.error for image in result.images], rtol=1e-3, atol=1e-7)
    assert Path("run/reconstructions.png").read_bytes()[:4] == b"\x89PNG"
    assert gan_invert(TOY, Context(out=Path("run"))).result == outcome.result
    own = TOY.model_copy(update={"split": "train", "steps": 1})
    images = gan_invert(own, Context(out=Path("train"))).result["images"]
    assert all(image["nearest_error"] > 0 and image["nearest_id"] != image["id"] for image in images)


@pytest.mark.usefixtures("here")
def test_a_vae_starts_where_its_encoder_says():
    config = TOY.model_copy(update={"model": "vae.pt", "restarts": 1, "steps": 1})
    with_encoder = gan_invert(config, Context(out=Path("vae"))).result
    model = made("conv-vae", role="vae")
    x = torch.from_numpy(np.load("toy.npz")["x_test"][:4])
    with torch.no_grad():
        error = (model.network(x) - x).square().mean((1, 2, 3))
    said = torch.tensor([image["start_error"] for image in with_encoder["images"]])
    torch.testing.assert_close(said, error)


@pytest.mark.usefixtures("here")
def test_faults_are_told_before_the_work_begins():
    with pytest.raises(ConfigError, match="--data"):
        gan_invert(TOY.model_copy(update={"data": None}), Context())
    save_model(made("mlp", 3, role="classifier"), "clf.pt")
    with pytest.raises(ModelError, match="classifier"):
        gan_invert(TOY.model_copy(update={"model": "clf.pt"}), Context())
    assert gan_invert(TOY, replace(Context(), dry_run=True)).result == {"n": 4, "passes": 41 * 2 * 4}
    assert not Path("runs").exists()
