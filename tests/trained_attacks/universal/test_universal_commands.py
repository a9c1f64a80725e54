"""``advkit patch`` and ``advkit universal`` from their configuration to what they leave."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advkit.commands.patch import run as patch
from advkit.commands.universal import run as universal
from advkit.core.context import Context
from advkit.core.errors import ConfigError, OutputError
from advkit.models.checkpoint import save_model
from advkit.trained_attacks.universal import judge
from advkit.trained_attacks.universal.result import PatchResult, PerturbationResult
from advkit.trained_attacks.universal.settings import PatchTraining, PerturbationTraining


@pytest.fixture(autouse=True)
def here(own_places, thirds, built, save_npz, monkeypatch):
    """A folder with linear classifiers as a.pt and b.pt, and images, labelled by the first, as toy.npz."""
    monkeypatch.setattr(judge, "MAPPED", 5)
    monkeypatch.setattr(judge, "PLACES", 3)
    model, images = thirds
    save_model(model, "a.pt")
    save_model(built("mlp", "classifier", 3, seed=1, hidden=()), "b.pt")
    save_npz(images(30, 1, "train"), images(30, 2, "test"))


SAID = {"model": ("a.pt",), "data": "npz:toy.npz", "steps": 4, "batch_size": 16}
PATCH = PatchTraining(**SAID, target=2, scale=(0.3, 0.7))
UNIVERSAL = PerturbationTraining(**SAID, norm="linf", eps=0.1, rate=1)


def figures(row):
    """All numbers of a row, as they are printed."""
    return [float(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\.?\d*", " | ".join(row))]


def test_a_patch_leaves_a_print_and_the_numbers_behind_it():
    outcome = patch(PATCH.model_copy(update={"transfer": ("b.pt",)}), Context(out=Path("patch.png")))
    assert outcome.files[:2] == (Path("patch.png"), Path("patch.npz"))
    with Image.open("patch.png") as picture:
        assert picture.size == (600, 600)
    saved = np.load("patch.npz")
    assert saved["patch"].shape == (1, 6, 6) and saved["patch"].dtype == np.uint8 and saved["target"] == 2
    assert [table.title.partition(":")[0] for table in outcome.tables] == ["a.pt", "b.pt (not trained on)"]
    assert [row[0] for row in outcome.tables[0].rows][::5] == ["0.30 (2 px)", "0.30 to 0.70"]
    (judged, _) = PatchResult.load(outcome.files[-1]).classifiers
    for row, hits in zip(outcome.tables[0].rows, (*judged.by_scale, judged.anywhere), strict=True):
        shown, counts = figures(row[1:]), (hits.patch, hits.noise, hits.grey, hits.real)
        assert [shown[0], *shown[3:]] == pytest.approx([100 * c / judged.judged for c in counts], abs=0.051)
    assert all(picture.path.read_bytes()[:4] == b"\x89PNG" for picture in outcome.pictures)
    assert PatchResult.load(outcome.files[-1]).as_values() == outcome.result
    with pytest.raises(OutputError):
        patch(PATCH, Context(out=Path("patch.npz")))


def test_a_run_speaks_for_no_other_models():
    first = patch(PATCH, Context(out=Path("run")))
    assert patch(PATCH, Context(out=Path("run"))).result == first.result
    Path("b.pt").replace("a.pt")
    with pytest.raises(ConfigError) as fault:
        patch(PATCH, Context(out=Path("run")))
    assert fault.value.code == "run-differs"


def test_a_universal_perturbation_leaves_a_picture_and_itself():
    outcome = universal(UNIVERSAL, Context(out=Path("run")))
    saved = np.load("run/universal.npz")
    assert np.abs(saved["perturbation"]).max() == pytest.approx(0.1) and saved["norm"] == "linf"
    assert all(picture.path.read_bytes()[:4] == b"\x89PNG" for picture in outcome.pictures)
    assert PerturbationResult.load("run").as_values() == outcome.result
    judged = PerturbationResult.load("run").classifiers[0]
    shown = figures(outcome.tables[0].rows[0][1:])
    counts = [judged.hits, judged.fooled_by_random, judged.clean_correct, judged.correct]
    assert [shown[0], *shown[3:]] == pytest.approx([100 * count / 30 for count in counts], abs=0.051)
    most, count = max(judged.becomes.items(), key=lambda each: each[1])
    assert f" {100 * count / judged.fooled:.0f} % become {most}" in outcome.sentences[1]
    aimed = universal(UNIVERSAL.model_copy(update={"target": 1}), Context(out=Path("aimed.npz")))
    assert aimed.files[:2] == (Path("aimed.png"), Path("aimed.npz"))
    assert aimed.tables[0].columns[1] == "classified as 1 [95 % interval]"


def test_a_dry_run_counts_and_makes_nothing():
    told = patch(PATCH, replace(Context(), dry_run=True)).result
    assert told == {"pixels": 6, "forwards": 64 + 30 * 25 + 3 * 9 * 5, "backwards": 64}
    assert universal(UNIVERSAL, replace(Context(), dry_run=True)).result["backwards"] == 64
    with pytest.raises(ConfigError):
        patch(PATCH.model_copy(update={"target": "x"}), replace(Context(), dry_run=True))
    assert not Path("runs").exists()


def test_what_comes_next_can_be_typed():
    said = PATCH.model_copy(update={"model": ("a.pt", "b.pt"), "pixel_range": (-1.0, 1.0), "steps": 1})
    assert PatchTraining(model="a.pt, b.pt", target=1).model == said.model
    with pytest.raises(ConfigError):  # a model with a card has its own range
        patch(said, Context())
    outcome = patch(said.model_copy(update={"pixel_range": (0.0, 1.0)}), Context(out=Path("run")))
    assert outcome.next[0] == "advkit patch --model=a.pt,b.pt --data=npz:toy.npz --target=2 --steps 3"
