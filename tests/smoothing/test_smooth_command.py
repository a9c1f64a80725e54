"""``advkit smooth`` from what is typed to what it leaves."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

import advkit
from advkit.cli.app import app
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.smoothing.result import SmoothingResult

WORDS = ["smooth", "--model=clf.pt", "--data=digits", "--n=20", "--sigma=0.2", "--samples=200"]


def save(name, **about):
    """A linear classifier of the digits, fitted by least squares."""
    train = advkit.load_data("digits", "train")
    x, y = train.batch(torch.arange(len(train)))
    known = torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1).double()
    solved = torch.linalg.solve(known.T @ known + 10 * torch.eye(65).double(), known.T @ one_hot(y).double())
    network = build("mlp", shape=(1, 8, 8), classes=10, config={"hidden": ()})
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(solved[:64].T)
        last.bias.copy_(solved[64])
    card = {
        "role": "classifier",
        "architecture": "mlp",
        "config": {"hidden": ()},
        "shape": (1, 8, 8),
        **about,
    }
    advkit.save_model(Model(network, ModelCard(**card, classes=10)).eval(), name)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    save("clf.pt")


def typed(*words):
    with pytest.raises(SystemExit) as leaving:
        app.main(list(words))
    return leaving.value.code


def test_leaves_what_it_says(capsys):
    assert typed(*WORDS, "--skip=3", "--out=run", "--json=result.json") == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "Average certified radius",
        "abstained",
        "l2 radius",
        "n = 20",
        "alpha 0.001",
        "20 images only, one in 3",
    ):
        assert words in told
    files = {path.name for path in Path("run").iterdir()}
    assert files >= {"result.json", "report.html", "curve.png", "smoothed.jsonl"}
    assert Path("run/curve.png").read_bytes()[:4] == b"\x89PNG"
    result = SmoothingResult.load("run")
    assert result.as_values() == json.loads(Path("result.json").read_text())
    assert [verdict.id for verdict in result.verdicts] == list(range(0, 60, 3))
    assert 10 < result.right <= 20 and 0.05 < result.average_radius < result.largest_radius
    lines = Path("run/smoothed.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"schema": "advkit/smoothed", "version": 1}
    assert [json.loads(line) for line in lines[1:]] == result.as_values()["verdicts"]
    assert typed(*WORDS, "--skip=3", "--out=run", "--batch-size=300", "--json=again.json") == 0
    assert "finished" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("again.json").read_text()) == result.as_values()


def test_a_model_that_noise_confuses_is_told_how_to_be_trained(capsys):
    assert typed(*WORDS, "--sigma=2") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "seems not to be trained on such noise" in told
    assert "--objective noise --set parameters.sigma=2" in told


def test_sigma_is_that_of_the_training(capsys):
    words = [word for word in WORDS if "sigma" not in word]
    assert typed(*words) == 2
    assert "give the noise with --sigma" in " ".join(capsys.readouterr().err.split())
    save("noisy.pt", training={"objective": "noise", "parameters": {"sigma": "1/5"}})
    words[1] = "--model=noisy.pt"
    assert typed(*words, "--json=said.json") == 0
    assert "sigma: 0.2, that which noisy.pt was trained on" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("said.json").read_text())["sigma"] == 0.2


def test_a_bar_that_is_missed_is_exit_code_1(capsys):
    assert typed(*WORDS, "--min-radius=0.7") == 1
    assert "FAIL: average certified radius" in capsys.readouterr().out
    assert typed(*WORDS, "--min-radius=0.01") == 0


def test_a_dry_run_says_what_it_would_cost(capsys):
    assert typed(*WORDS, "--dry-run", "--json=plan.json") == 0
    assert json.loads(Path("plan.json").read_text())["forwards"] == 20 * 300
    assert "0.365 at most" in " ".join(capsys.readouterr().out.split())
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples=5"], "take 10 samples or more"),
        (["--sigma=0"], "greater than 0"),
        (["--sigma=-1/2"], "greater than 0"),
        (["--alpha=1"], "less than 1"),
        (["--data=mnist-c"], "mnist-c"),
    ],
)
def test_faults_are_a_sentence_and_exit_code_2(words, said, capsys):
    assert typed(*WORDS, *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()
