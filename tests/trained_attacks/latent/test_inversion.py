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
from advkit.models.checkpoint import save_model
from advkit.models.model import weights_hash
from advkit.trained_attacks.latent.invert import invert
from advkit.trained_attacks.latent.result import InversionResult
from advkit.trained_attacks.latent.settings import GanInversion, InversionSettings

SHORT = InversionSettings(steps=60, restarts=2)


@pytest.fixture
def dense(built):
    """A small generator, whose images differ."""
    model = built("mlp-gan-generator", "generator", latent_dim=3, hidden=(16,), dropout=0.0)
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
    config = InversionSettings(steps=5, restarts=3, rate=0.5, seed=2)
    found = invert(dense, x, config=config, ids=torch.tensor([4, 7, 9]))
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
        assert found.start[i] == ends.index((error, latent))
        assert found.start_error[i].item() == pytest.approx(min(starts))
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


def test_a_conditional_generator_is_asked_for_the_class(built):
    inner = {"generator": "mlp-gan-generator", "generator_config": {"hidden": [16]}}
    model = built("conditional-generator", "generator", 3, **inner)
    labels = torch.arange(6) % 3
    x = drawn(model, 6, 5, labels)
    before, mode = weights_hash(model.state_dict()), model.train().training
    right = invert(model, x, labels, SHORT)
    wrong = invert(model, x, (labels + 1) % 3, SHORT)
    assert right.error.mean() < wrong.error.mean()
    assert weights_hash(model.state_dict()) == before and model.training == mode
    assert all(parameter.grad is None for parameter in model.parameters())
    for wrong in ((x, None), (x, torch.arange(6)), (torch.zeros(6, 1, 9, 9), labels)):
        with pytest.raises(DataError):
            invert(model, *wrong, SHORT)
    with pytest.raises(ModelError):
        invert(built("mlp", "classifier", 3), torch.zeros(1, 1, 8, 8))


@pytest.fixture
def here(own_places, built, dense):
    """A folder with a generator, a VAE and images that the generator made."""
    save_model(dense, "gen.pt")
    save_model(built("conv-vae", "vae"), "vae.pt")
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
    arrays = np.load("toy.npz")
    np.savez("whole.npz", x=arrays["x_train"], y=arrays["y_train"])  # not divided: all are training images
    for other in ({"split": "train"}, {"data": "npz:whole.npz"}):
        own = TOY.model_copy(update={**other, "steps": 1})
        images = gan_invert(own, Context(out=Path("-".join(other)))).result["images"]
        assert all(image["nearest_error"] > 0 and image["nearest_id"] != image["id"] for image in images)


@pytest.mark.usefixtures("here")
def test_classes_are_those_that_the_generator_has_by_these_names(built):
    model = built("conditional-generator", "generator", 2, generator="mlp-gan-generator")
    np.savez("named.npz", **np.load("toy.npz"), class_names=["cat", "dog"])
    for names in (("cat", "dog"), ("dog", "cat")):
        model.card = model.card.model_copy(update={"labels": names})
        save_model(model, f"{names[0]}.pt")
        asked = TOY.model_copy(update={"model": f"{names[0]}.pt", "data": "npz:named.npz", "steps": 1})
        gan_invert(asked, Context(out=Path(f"of-{names[0]}")))
    labels = [np.load(f"of-{name}/latents.npz")["label"] for name in ("cat", "dog")]
    assert np.array_equal(labels[0], 1 - labels[1])


@pytest.mark.usefixtures("here")
def test_a_vae_starts_where_its_encoder_says(built):
    config = TOY.model_copy(update={"model": "vae.pt", "restarts": 1, "steps": 1})
    with_encoder = gan_invert(config, Context(out=Path("vae"))).result
    model = built("conv-vae", "vae")
    x = torch.from_numpy(np.load("toy.npz")["x_test"][:4])
    with torch.no_grad():
        error = (model.network(x) - x).square().mean((1, 2, 3))
    said = torch.tensor([image["start_error"] for image in with_encoder["images"]])
    torch.testing.assert_close(said, error)


@pytest.mark.usefixtures("here")
def test_faults_are_told_before_the_work_begins(built):
    save_model(built("mlp", "classifier", 3), "clf.pt")
    for wrong, fault in (({"data": None}, ConfigError), ({"model": "clf.pt"}, ModelError)):
        with pytest.raises(fault):
            gan_invert(TOY.model_copy(update=wrong), Context())
    assert gan_invert(TOY, replace(Context(), dry_run=True)).result == {"n": 4, "passes": 41 * 2 * 4}
    assert not Path("runs").exists()
