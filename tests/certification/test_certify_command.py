"""``advkit certify`` and ``advkit attack --certify`` from what is typed to what they leave."""

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

WORDS = ["certify", "--model=clf.pt", "--data=digits", "--n=40", "--norm=linf", "--eps=0.02"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with a linear classifier of the digits as clf.pt, fitted by least squares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    train = advkit.load_data("digits", "train")
    x, y = train.batch(torch.arange(len(train)))
    known = torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1).double()
    solved = torch.linalg.solve(known.T @ known + 10 * torch.eye(65).double(), known.T @ one_hot(y).double())
    network = build("mlp", shape=(1, 8, 8), classes=10, config={"hidden": ()})
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(solved[:64].T)
        last.bias.copy_(solved[64])
    about = {"role": "classifier", "architecture": "mlp", "config": {"hidden": ()}, "shape": (1, 8, 8)}
    advkit.save_model(Model(network, ModelCard(**about, classes=10)).eval(), "clf.pt")


def typed(*words):
    with pytest.raises(SystemExit) as leaving:
        app.main(list(words))
    return leaving.value.code


def test_leaves_what_it_says(capsys):
    assert typed(*WORDS, "--out=run", "--json=result.json") == 0
    told = capsys.readouterr().out
    for words in ("certified accuracy", "No attack, known or not", "interval", "by class", "Partial: 40"):
        assert words in told
    assert "--norm linf --eps 0.02 --certify" in told
    files = {path.name for path in Path("run").iterdir()}
    assert files >= {"result.json", "report.html", "margins.png", "certified.jsonl"}
    assert Path("run/margins.png").read_bytes()[:4] == b"\x89PNG"
    result = json.loads(Path("run/result.json").read_text())
    assert result == json.loads(Path("result.json").read_text())
    assert 0 < result["certified_correct"] < result["clean_correct"] <= 40
    assert typed(*WORDS, "--out=run", "--json=again.json") == 0
    assert "finished" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("again.json").read_text()) == result


def test_a_bar_that_is_missed_is_exit_code_1(capsys):
    assert typed(*WORDS, "--min-certified=0.99") == 1
    assert "FAIL: certified accuracy" in capsys.readouterr().out
    assert typed(*WORDS, "--min-certified=0.1") == 0


def test_a_dry_run_shows_how_the_network_is_read(capsys):
    assert typed(*WORDS, "--dry-run", "--json=plan.json") == 0
    assert "Dense" in capsys.readouterr().out
    assert json.loads(Path("plan.json").read_text())["layers"] == 3
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--norm=l0"], "choose --norm linf, l2 or l1"),
        (["--eps=8"], "write 8/255"),
        (["--eps=0"], "greater than 0"),
        (["--method=exact"], "method"),
    ],
)
def test_faults_are_a_sentence_and_exit_code_2(words, said, capsys):
    assert typed(*WORDS, *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()


def test_an_attack_with_proofs_tells_both_sides(capsys):
    words = ["attack", *WORDS[1:], "--attack=pgd", "--certify", "--json=both.json"]
    assert typed(*words) == 0
    told = " ".join(capsys.readouterr().out.split())
    result = json.loads(Path("both.json").read_text())
    assert 0 < result["certified_correct"] <= result["robust_correct"] < 40
    assert f"between {100 * result['certified_correct'] / 40:.1f} % (proved) and" in told
    assert "robust accuracy from both sides" in told


def test_a_network_that_cannot_be_read_is_refused_before_any_attack(monkeypatch, tmp_path, capsys):
    Path("odd_for_a_test.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GELU())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for command in ("certify", "attack"):
        words = [
            command,
            "--model=odd_for_a_test:make",
            *WORDS[2:],
            *(["--certify"] if command == "attack" else []),
        ]
        assert typed(*words) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "layer '2' (GELU) cannot be bounded" in said
