"""The commands: what they leave, what they say, what they refuse."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.commands.gan_sample import run as sample
from advkit.commands.gan_train import run as train
from advkit.core import distributed, files
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError, OutputError
from advkit.data.load import load_data
from advkit.gan.adversarial import GanGame
from advkit.gan.sample import BATCH, draw
from advkit.gan.sample import sample as draw_images
from advkit.gan.settings import GanTraining, Sampling
from advkit.gan.train import begin
from advkit.models.card import ModelCard
from advkit.models.checkpoint import load_checkpoint
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.store import Store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def once(tmp_path_factory, small):
    """A folder with a finished run, for all tests of this file."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ADVKIT_HOME", str(folder / "home"))
        patch.setattr("advkit.gan.sample_logger.WATCHED", 120)
        return folder, train(small(name="toy", tensorboard=True), Context(out=Path("run")))


@pytest.fixture
def trained(once, monkeypatch):
    monkeypatch.chdir(once[0])
    monkeypatch.setenv("ADVKIT_HOME", str(once[0] / "home"))
    return once[1]


def rows() -> list[dict]:
    return [json.loads(line) for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_models_pictures_and_figures(trained):
    folder = trained.files[-1]
    assert folder == Path("run") and not (folder / "state.pt").exists()
    assert all(path.exists() for path in (*trained.files, *(picture.path for picture in trained.pictures)))
    result = files.read_json(folder / "result.json")
    assert result == trained.result
    assert list(Store().names()) == ["toy-best", "toy-discriminator", "toy-ema", "toy-generator"]
    for name, facts in result["models"].items():
        model = load_checkpoint(folder / f"{name}.safetensors")
        assert model.hash == Store().hash(f"toy-{name}") == facts["hash"]
        assert facts["parameters"] == sum(t.numel() for t in model.state_dict().values() if t.dim())
    generator = result["models"]["generator"]
    for name, relation in (("ema", "ema-of"), ("discriminator", "discriminator-of")):
        (parent,) = load_checkpoint(folder / f"{name}.safetensors").card.lineage
        assert (parent.relation, parent.hash, parent.name) == (relation, generator["hash"], generator["name"])
    assert result["data"]["fingerprint"] == load_data("digits", "train").fingerprint
    assert result["last"]["steps"] == 12 and {"d_accuracy", "d_loss", "fid"} <= result["last"].keys()
    best = min((row for row in rows() if "fid" in row), key=lambda row: row["fid"])
    assert result["best"] == {"by": "fid", "step": best["step"]}


def test_a_dry_run_counts_passes_and_writes_nothing(config, tmp_path):
    told = train(config(arch="conv-gan", data="digits"), Context(dry_run=True))
    images = 12 * 8
    assert told.result["images"] == images
    # D sees real and generated images for itself and generated ones once more for the generator.
    assert told.result["passes"] == {
        "generator": {"forwards": images, "backwards": images},
        "discriminator": {"forwards": 3 * images, "backwards": 3 * images},
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 41},
        {"arch": "conv-gn"},
        {"loss": "minimx"},
        {"generator": {"latent_dimm": 4}},
        {"discriminator": {"dropout": 1.5}},
        {"packing": 3},
        {"packing": 2, "conditional": "projection"},
        {"augment_target": 0.6},
        {"kind": "vae", "arch": "conv-gan", "discriminator": {}},
        {"name": "../gan"},
        {"regularisers": ("r3",)},
        {"regularisation": {"r1": {}}},
        {"regularisers": ("r1",), "regularisation": {"r1": {"weight": -1}}},
    ],
    ids=str,
)
def test_faults_of_a_configuration(changes, data, config):
    with pytest.raises(ConfigError):
        begin(config(**changes), data, CPU)


def test_faults_leave_no_folder_and_what_would_be_ignored_is_refused(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for changes in ({"arch": "mlp-gna"}, {"name": "x" * 90}, {"tensorboard": True}):
        with pytest.raises(ConfigError):
            train(config(**changes), Context(out=Path("run")))
    assert not Path("run").exists()
    idle = {"loss": "hinge", "conditional": "projection", "rate_discriminator": 1e-3}
    for given in (*({"kind": "vae", key: idle[key]} for key in idle), {"kind": "gan", "divergence": 2.0}):
        with pytest.raises(ConfigError):
            validate(GanTraining, given, "gan-train")
    assert [GanTraining(kind=kind).arch for kind in ("vae", "gan")] == ["conv-vae", "conv-gan"]


def test_data_from_which_nothing_can_be_learnt(data, config, monkeypatch):
    with pytest.raises(DataError):
        begin(config(), replace(data, images=data.images[:1].expand(40, 1, 8, 8).clone()), CPU)
    with pytest.raises(ConfigError):
        GanGame(config(conditional="projection"), replace(data, labels=torch.zeros_like(data.labels)), CPU)
    game = GanGame(config(batch_size=40), data, CPU)  # as many images as the batch
    assert torch.isfinite(game.update()).all()
    assert type(GanGame(config(loss="bce"), data, CPU).loss).__name__ == "NonSaturating"
    monkeypatch.setattr(distributed, "world", lambda: 2)
    GanGame(config(batch_size=16, packing=4), data, CPU)
    with pytest.raises(ConfigError):
        GanGame(config(batch_size=15), data, CPU)


def test_the_last_grid_is_what_sampling_draws(trained):
    sample(Sampling(model="toy-ema", n=400), Context(out=Path("again.png")))
    assert Path("again.png").read_bytes() == Path("run/grid.png").read_bytes()
    for n, columns, side in ((400, None, (20, 20)), (5, None, (3, 2)), (5, 5, (5, 1)), (2, 9, (2, 1))):
        sample(Sampling(model="run", n=n, columns=columns), Context(out=Path("grid.png"), overwrite=True))
        with Image.open("grid.png") as picture:
            width, height = (9 * count + 1 for count in side)  # images of 8 pixels, a pixel apart
            zoom = 800 // width
            assert picture.size == (width * zoom, height * zoom) and picture.mode == "L"


def test_arrays_hold_images_and_the_latent_vectors_they_come_from(trained):
    sample(Sampling(model="toy-ema", n=7, seed=3), Context(out=Path("few.npz")))
    with np.load("few.npz") as arrays:
        x, z = arrays["x"], arrays["z"]
    assert (x.shape, x.dtype, z.shape, z.dtype) == ((7, 1, 8, 8), np.uint8, (7, 100), np.float32)
    with torch.no_grad():
        images = load_model("toy-ema")(torch.from_numpy(z))
    assert np.abs(images.numpy() * 255 - x).max() <= 0.51


@pytest.mark.parametrize("arch", ["conv-gan", "mlp-gan"])
def test_the_first_images_do_not_depend_on_how_many_are_drawn(arch, built):
    model = built(f"{arch}-generator", "generator")
    network = model.network
    before = torch.get_rng_state()
    few, latents = draw_images(model.train(), 7)
    many, more = draw_images(model, BATCH + 50)
    assert torch.equal(few, many[:7]) and torch.equal(latents, more[:7])
    assert len(more.unique(dim=0)) == BATCH + 50
    assert not torch.equal(latents, draw_images(model, 7, seed=1)[1])
    assert model.network.training and network.training
    pieces = draw(network, latents, batch_size=3)
    assert (pieces * 255 - few).abs().max() <= 0.51 and network.training
    assert torch.equal(torch.get_rng_state(), before)


def test_what_draws_nothing(trained):
    with pytest.raises(ModelError):
        sample(Sampling(model="toy-discriminator"), Context())
    card = ModelCard(role="generator", architecture="someones:generator", shape=(1, 8, 8))
    with pytest.raises(ModelError):
        draw_images(Model(torch.nn.Linear(4, 4), card), 3)


def test_files_are_kept_unless_told_and_named_after_the_model(trained):
    first = sample(Sampling(model="run/ema.safetensors", n=4), Context()).files
    assert first == (Path("ema.png"),)
    before = Path("ema.png").read_bytes()
    with pytest.raises(OutputError) as fault:
        sample(Sampling(model="run/ema.safetensors", n=4, seed=1), Context())
    assert fault.value.code == "already-exists"
    assert Path("ema.png").read_bytes() == before
    sample(Sampling(model="run/ema.safetensors", n=4, seed=1), Context(overwrite=True))
    assert Path("ema.png").read_bytes() != before
    said = sample(Sampling(model="run", n=9), Context(dry_run=True))
    assert said.result["file"] == "run.png" and not Path("run.png").exists()
    Path("folder.png").mkdir()
    for out, fault in (("grid.jpg", ConfigError), ("folder.png", OutputError)):
        with pytest.raises(fault):
            sample(Sampling(model="nothing"), Context(out=Path(out)))
