"""A sweep runs every evaluation on every model once, whatever fails or ends it."""

import shutil
from unittest import mock

import numpy as np
import pytest
import torch

from advkit.cli import recipes
from advkit.commands import COMMANDS
from advkit.commands.sweep import SweepResult
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.evaluation.evaluate import attacked
from advkit.models.checkpoint import save_model

SWEEP = """
command = "sweep"
about.summary = "two evaluations on two models"
model = ["clf.pt", "other.pt"]
recipes = ["mine.toml"]

[evaluation.noise]
command = "attack"
attack = "noise"
data = "npz:toy.npz"
norm = "linf"
eps = 0.01
min_robust = 1.0
accept_doubt = ["effort"]
"""
MINE = """
command = "certify"
about.summary = "bounds"
model = "nothing.pt"
data = "npz:toy.npz"
norm = "linf"
eps = 0.001
"""


@pytest.fixture
def swept(built, tmp_path):
    model = built("mlp", classes=3, hidden=(8,))
    save_model(model, tmp_path / "clf.pt")
    x = np.random.default_rng(0).random((24, *model.card.shape), dtype=np.float32)
    np.savez(tmp_path / "toy.npz", x=x, y=model(torch.from_numpy(x)).argmax(1).numpy())
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    command, config = recipes.load("sweep.toml")
    return tmp_path, lambda **where: command.run(config, Context(out=tmp_path / "out", **where))


def test_what_is_done_is_not_done_again_and_what_failed_is(swept):
    folder, run = swept
    first = run()
    assert [(row["evaluation"], row["model"], row["state"]) for row in first.result["rows"]] == [
        ("noise", "clf.pt", first.result["rows"][0]["state"]),
        ("noise", "other.pt", "failed"),
        ("mine", "clf.pt", "done"),
        ("mine", "other.pt", "failed"),
    ]
    assert not first.passed and first.warning and not (folder / "out" / "result.json").exists()
    shutil.copy("clf.pt", "other.pt")
    with mock.patch("advkit.commands.attack.attacked", side_effect=attacked) as again:
        second = run()
    assert again.call_count == 1  # on the model that was missing
    states = [row["state"] for row in second.result["rows"]]
    assert states[0] == states[1] == first.result["rows"][0]["state"] and states[2:] == ["done", "done"]
    assert second.passed == ("missed" not in states) and not second.warning
    assert len({row["folder"] for row in second.result["rows"]}) == 4
    told = SweepResult.load(folder / "out")
    assert [row.state for row in told.rows] == states
    assert told.summary().startswith("4 ") and ("missed" in told.summary()) == ("missed" in states)
    with mock.patch("advkit.commands.attack.attacked") as never:
        third = run()
    assert not never.called and third.result["rows"] == second.result["rows"]


def test_a_dry_run_makes_nothing(swept):
    folder, run = swept
    shutil.copy("clf.pt", "other.pt")
    assert len(run(dry_run=True).tables[0].rows) == 4 and not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[evaluation.a]\ncommand = "attack"\nesp = 3', ["'a'", "esp"]),
        ('[evaluation.a]\ncommand = "atack"\n[evaluation.b]\nattack = 3', ["'a'", "'b'", "atack"]),
        ('recipes = ["mine.toml"]\n[evaluation.mine]\ncommand = "attack"', ["'mine'"]),
        ('recipes = "mine.toml"', ["recipes"]),
        ("", ["evaluation"]),
    ],
    ids=range(5),
)
def test_all_faults_of_a_sweep(swept, text, said):
    folder, _ = swept
    (folder / "bad.toml").write_text(f'command = "sweep"\nmodel = ["clf.pt"]\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        recipes.load("bad.toml")
    assert [part for part in said if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    "evaluation",
    [{"command": "sweep", "evaluation": {}}, {}, {"command": "gan-train"}, {"command": "attack", "x": 1}],
    ids=range(4),
)
def test_what_is_no_evaluation_of_a_model_is_refused(tmp_path, evaluation):
    command = COMMANDS["sweep"]
    config = command.config(model=("clf.pt",), evaluation={"a": evaluation})
    with pytest.raises(ConfigError):
        command.run(config, Context(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
