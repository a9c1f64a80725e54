"""The commands: what they leave, what they say, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit import rng
from advkit.context import Context
from advkit.data.load import load_data
from advkit.errors import ConfigError, ModelError, OutputError
from advkit.gan import outcome
from advkit.gan.command import sample, train
from advkit.gan.curves import write_curves
from advkit.gan.plan import Sampling
from advkit.gan.sample import BATCH
from advkit.gan.sample import sample as draw_images
from advkit.models.card import ModelCard
from advkit.models.checkpoint import load_checkpoint
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.store import Store
from advkit.outcome import Outcome
from advkit.progress import Progress


@pytest.fixture
def trained(config: Callable, tmp_path: Path) -> Outcome:
    return train(config(name="toy"), Context(out=Path("run")))


def test_a_run_leaves_models_pictures_and_figures(trained: Outcome) -> None:
    folder = trained.files[-1]
    assert folder == Path("run")
    assert all(path.exists() for path in (*trained.files, *(picture.path for picture in trained.pictures)))
    result = json.loads((folder / "result.json").read_text())
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
    assert not (folder / "state.pt").exists()


def test_what_is_reported_is_the_mean_over_the_steps(trained: Outcome) -> None:
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == [3, 5, 6, 9, 10, 12]
    counts = np.diff([0, *steps])
    for name in ("d_loss", "g_loss", "d_accuracy", "d_accuracy_real", "d_accuracy_fake"):
        wanted = np.average([row[name] for row in rows], weights=counts)
        assert trained.result["last"][name] == pytest.approx(wanted)
    assert trained.result["last"]["diversity"] == rows[-1]["diversity"]


def test_a_finished_run_shows_its_result_again(trained: Outcome, config: Callable) -> None:
    class Heard(Progress):
        messages: list[str] = []

        def say(self, message: str) -> None:
            self.messages.append(message)

    before = Path("run/ema.safetensors").stat().st_mtime_ns
    again = train(config(name="toy"), Context(out=Path("run"), progress=Heard()))
    assert again == trained
    assert Heard.messages == ["run is finished; this is what came of it"]
    assert Path("run/ema.safetensors").stat().st_mtime_ns == before


def test_faults_leave_no_folder(config: Callable) -> None:
    for changes, said in (({"arch": "mlp-gna"}, "did you mean"), ({"name": "x" * 90}, "name of a model")):
        with pytest.raises(ConfigError, match=said):
            train(config(**changes), Context(out=Path("run")))
    assert not Path("run").exists()


def test_a_dry_run_counts_passes_and_writes_nothing(config: Callable, tmp_path: Path) -> None:
    planned = train(config(arch="conv-gan", data="digits"), Context(dry_run=True)).result
    images = 12 * 8
    assert planned["images"] == images
    # D sees real and generated images for itself and generated ones once more for the generator.
    assert planned["passes"] == {
        "generator": {"forwards": images, "backwards": images},
        "discriminator": {"forwards": 3 * images, "backwards": 3 * images},
    }
    assert list(tmp_path.iterdir()) == []


def test_the_next_commands_name_what_was_trained(trained: Outcome) -> None:
    assert trained.next[0] == "advkit gan-sample --model toy-ema --n 400 --out digits.png"
    assert trained.next[1] == "advkit finetune --model toy-discriminator --out clf.pt"


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [(0.995, "wins every time"), (0.85, "ahead of the generator"), (0.6, "near balance"), (0.3, "too weak")],
)
def test_the_balance_is_told_from_the_accuracy(accuracy: float, said: str) -> None:
    assert said in outcome._balance(accuracy)


def test_the_last_grid_is_what_sampling_draws(trained: Outcome) -> None:
    drawn = sample(Sampling(model="toy-ema", n=400), Context(out=Path("again.png")))
    assert drawn.files == (Path("again.png"),)
    assert Path("again.png").read_bytes() == Path("run/grid.png").read_bytes()
    with Image.open("again.png") as picture:
        side = 20 * 9 + 1  # 20 images of 8 pixels, a pixel apart
        assert picture.size == (side * (800 // side),) * 2


@pytest.mark.parametrize(("n", "columns", "size"), [(5, None, (3, 2)), (5, 5, (5, 1)), (2, 9, (2, 1))])
def test_grids_are_squarish_unless_told(
    n: int, columns: int | None, size: tuple[int, int], trained: Outcome
) -> None:
    sample(Sampling(model="run", n=n, columns=columns), Context(out=Path("grid.png")))
    with Image.open("grid.png") as picture:
        width, height = (9 * count + 1 for count in size)
        zoom = 800 // width
        assert picture.size == (width * zoom, height * zoom)
        assert picture.mode == "L"


def test_arrays_hold_images_and_the_latent_vectors_they_come_from(trained: Outcome) -> None:
    sample(Sampling(model="toy-ema", n=7, seed=3), Context(out=Path("few.npz")))
    with np.load("few.npz") as arrays:
        x, z = arrays["x"], arrays["z"]
    assert (x.shape, x.dtype, z.shape, z.dtype) == ((7, 1, 8, 8), np.uint8, (7, 100), np.float32)
    with torch.no_grad():
        images = load_model("toy-ema")(torch.from_numpy(z))
    assert np.abs(images.numpy() * 255 - x).max() <= 0.51


@pytest.mark.parametrize("arch", ["conv-gan", "mlp-gan"])
def test_the_first_images_do_not_depend_on_how_many_are_drawn(arch: str) -> None:
    with rng.scope("cpu", 0, "test"):
        network = build(f"{arch}-generator", shape=(1, 8, 8))
    model = Model(network, ModelCard(role="generator", architecture=f"{arch}-generator", shape=(1, 8, 8)))
    before = torch.get_rng_state()
    few, latents = draw_images(model.train(), 7)
    many, more = draw_images(model, BATCH + 50)
    assert torch.equal(few, many[:7])
    assert torch.equal(latents, more[:7])
    assert not torch.equal(latents, draw_images(model, 7, seed=1)[1])
    assert model.network.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_discriminator_draws_nothing(trained: Outcome) -> None:
    with pytest.raises(ModelError, match="toy-discriminator is a discriminator, but a generator is wanted"):
        sample(Sampling(model="toy-discriminator"), Context())


def test_files_are_kept_unless_told_and_named_after_the_model(trained: Outcome) -> None:
    first = sample(Sampling(model="run/ema.safetensors", n=4), Context()).files
    assert first == (Path("ema.png"),)
    before = Path("ema.png").read_bytes()
    with pytest.raises(OutputError, match=r"ema\.png exists already; .*--overwrite"):
        sample(Sampling(model="run/ema.safetensors", n=4, seed=1), Context())
    assert Path("ema.png").read_bytes() == before
    sample(Sampling(model="run/ema.safetensors", n=4, seed=1), Context(overwrite=True))
    assert Path("ema.png").read_bytes() != before


@pytest.mark.parametrize(
    ("out", "fault", "said"),
    [("grid.jpg", ConfigError, r"\.png \(a grid\) or \.npz"), ("folder.png", OutputError, "is a folder")],
)
def test_places_that_will_not_do(out: str, fault: type[Exception], said: str) -> None:
    Path("folder.png").mkdir()
    with pytest.raises(fault, match=said):
        sample(Sampling(model="nothing"), Context(out=Path(out)))


def test_a_dry_sampling_writes_nothing(trained: Outcome) -> None:
    said = sample(Sampling(model="run", n=9), Context(dry_run=True))
    assert said.result["file"] == "run.png"
    assert not Path("run.png").exists()


def test_a_foreign_generator_has_no_known_prior() -> None:
    card = ModelCard(role="generator", architecture="someones:generator", shape=(1, 8, 8))
    with pytest.raises(ModelError, match="distribution of its latent vectors is unknown"):
        draw_images(Model(torch.nn.Linear(4, 4), card), 3)


def test_the_curves_are_a_picture_of_every_row_that_counts(tmp_path: Path) -> None:
    rows = [{"step": s, "d_loss": 0.6, "g_loss": 1.0, "d_accuracy": 0.6} for s in (50, 100, 101)]
    write_curves(tmp_path / "all.png", rows, title="toy")
    write_curves(tmp_path / "two.png", rows[:2], title="toy")
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.size == (960, 540)
