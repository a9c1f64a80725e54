"""``advkit spatial`` from its configuration to what it leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.commands.spatial import run as spatial
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, OutputError
from advkit.evaluation.spatial.settings import Spatial
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import build


def mlp(seed: int) -> Model:
    with rng.scope("cpu", seed, "judged"):
        network = build("mlp", shape=(1, 8, 8), classes=3, config={"hidden": ()})
    about = {"role": "classifier", "architecture": "mlp", "config": {"hidden": ()}, "shape": (1, 8, 8)}
    return Model(network, ModelCard(**about, classes=3)).eval()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with a linear classifier as clf.pt and images, labelled by it, as toy.npz."""
    monkeypatch.chdir(tmp_path)
    model = mlp(0)
    save_model(model, "clf.pt")
    x = rng.uniform(torch.arange(30), (1, 8, 8))
    with torch.no_grad():
        y = model(x).argmax(1)
    np.savez("toy.npz", x=x.numpy(), y=y.numpy())


PLAN = Spatial(model="clf.pt", data="npz:toy.npz", rotation=20, rotations=5, shifts=3, random=2)


def test_leaves_what_it_says():
    said = PLAN.model_copy(update={"save": "moved.npz"})
    outcome = spatial(said, Context(out=Path("run")))
    saved = np.load("moved.npz")
    assert (saved["status"] == "robust").sum() == outcome.result["robust_correct"] < 30
    assert outcome.files == (Path("moved.npz"), Path("run"))
    starts = {picture.path.suffix: picture.path.read_bytes()[:5] for picture in outcome.pictures}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml"}
    assert [row[0] for row in outcome.tables[0].rows][1:3] == ["worst of 2 random", "grid of 45"]
    left = [outcome.result[f"{by}_correct"] for by in ("clean", "random", "grid", "robust")]
    shown = [(int(row[1]), float(row[2].split()[0])) for row in outcome.tables[0].rows]
    assert shown == [(left[0] - each, pytest.approx(100 * each / 30, abs=0.051)) for each in left]
    again = spatial(PLAN, Context(out=Path("run")))
    assert again.result == outcome.result
    with pytest.raises(OutputError, match=r"moved\.npz exists already"):
        spatial(said, Context())
    with pytest.raises(OutputError, match=r"name a \.npz file"):
        spatial(said.model_copy(update={"save": "moved"}), Context())


def test_a_finished_run_does_not_speak_for_another_model():
    spatial(PLAN, Context(out=Path("run")))
    save_model(mlp(1), "clf.pt", overwrite=True)
    with pytest.raises(ConfigError, match="did not begin with the same model"):
        spatial(PLAN, Context(out=Path("run")))


def test_a_dry_run_counts_and_makes_nothing():
    outcome = spatial(PLAN, replace(Context(), dry_run=True))
    assert outcome.result == {"n": 30, "moves_random": 2, "moves_grid": 45, "forwards": 30 * 48}
    assert not Path("runs").exists()
