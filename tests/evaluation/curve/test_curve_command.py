"""``advkit curve`` from what is typed to what it leaves."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

import advkit
from advkit.cli.app import app
from advkit.commands.curve import run as curve
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.evaluation.curve.settings import Curve
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with a linear classifier of the digits as clf.pt, fitted by least squares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    train = advkit.load_data("digits", "train")
    x, y = train.batch(torch.arange(len(train)))
    known = torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1).double()
    ridge = known.T @ known + 10 * torch.eye(65).double()
    solved = torch.linalg.solve(ridge, known.T @ one_hot(y).double()).float()
    network = build("mlp", shape=(1, 8, 8), classes=10, config={"hidden": ()})
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(solved[:64].T)
        last.bias.copy_(solved[64])
    about = {"role": "classifier", "architecture": "mlp", "config": {"hidden": ()}, "shape": (1, 8, 8)}
    advkit.save_model(Model(network, ModelCard(**about, classes=10)).eval(), "clf.pt")


PLAN = Curve(model="clf.pt", data="digits", n=40, attack=("fmn",), parameters={"fmn": {"steps": 30}})
WORDS = [
    "curve",
    "--model=clf.pt",
    "--data=digits",
    "--n=40",
    "--attack=fmn",
    "--set=parameters.fmn.steps=30",
]


def typed(*words):
    with pytest.raises(SystemExit) as leaving:
        app.main([*WORDS, *words])
    return leaving.value.code


def test_leaves_what_it_says(capsys):
    assert typed("--out=run", "--eps=0.07", "--json=curve.json") == 0
    told = capsys.readouterr().out
    assert max(len(line) for line in told.splitlines() if "─" in line) <= 80
    for words in ("robust accuracy at most", "asked for", "default of digits", "median norm"):
        assert words in told
    made = {path.name for path in Path("run").iterdir()}
    assert made >= {"result.json", "report.html", "curve.svg", "norms.svg", "classes.svg", "verdicts.jsonl"}
    assert Path("run/report.html").read_text(encoding="utf-8").count("<svg") == 4
    result = files.read_json(Path("run/result.json"))
    assert result == json.loads(Path("curve.json").read_text(encoding="utf-8"))
    assert 0.07 in [point["eps"] for point in result["points"]] and len(result["images"]) == 40
    half = f"{result['half']:.3g}"
    assert f"advkit attack --model=clf.pt --data=digits --norm linf --eps {half}" in told


def test_a_finished_run_tells_the_curve_elsewhere_without_an_attack(monkeypatch):
    first = curve(PLAN, Context(out=Path("run")))
    monkeypatch.setattr("advkit.commands.curve.measured", None)
    points, classes, attacks = (table.rows for table in first.tables)
    for row, point in zip(points[1:], first.result["points"], strict=True):
        assert float(row[0]) == pytest.approx(point["eps"], rel=1e-3)
        assert float(row[1].split()[0]) == pytest.approx(100 * point["robust_correct"] / 40, abs=0.051)
    assert float(points[0][1].split()[0]) == pytest.approx(
        100 * first.result["clean_correct"] / 40, abs=0.051
    )
    for row in first.result["classes"]:
        (said,) = (each for each in classes if each[0] == row["name"])
        assert int(said[1]) == row["n"] and said[3].startswith(f"{row['median']['value']:.3g} [")
        for text, count in ((said[2], "clean_correct"), (said[4], "robust_correct")):
            assert float(text.split()[0]) == pytest.approx(100 * row[count] / row["n"], abs=0.051)
    (one,) = first.result["attacks"]
    passes = f"{one['forwards'] + one['backwards']:,}"
    found = f"{one['found']} of {one['attacked']}"
    assert attacks == (("fmn", found, str(one["nearest"]), f"{one['median']:.3g}", passes),)
    again = curve(PLAN.model_copy(update={"eps": (0.033,)}), Context(out=Path("run")))
    assert next(p for p in again.result["points"] if p not in first.result["points"])["eps"] == 0.033
    assert again.result["images"] == first.result["images"]
    assert files.read_json(Path("run/result.json")) == again.result
    with pytest.raises(ConfigError, match="seed was 0, is now 1"):
        curve(PLAN.model_copy(update={"seed": 1}), Context(out=Path("run")))


def test_a_dry_run_counts_and_makes_nothing():
    outcome = curve(PLAN, replace(Context(), dry_run=True))
    assert outcome.result == {"n": 40, "norm": "linf", "attacks": ["fmn"], "forwards": 40 * 31}
    usual = curve(PLAN.model_copy(update={"attack": (), "parameters": {}}), replace(Context(), dry_run=True))
    assert usual.result["attacks"] == ["fmn", "fmn-t"]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attack=fmn,pgd"], "pgd"),
        (["--eps=8"], "8/255"),
        (["--eps=none"], "eps.0"),
        (["--norm=l7"], "norm"),
        (["--data=digit"], "'digits'"),
    ],
)
def test_faults_are_a_sentence_and_exit_code_2(words, said, capsys):
    assert typed(*words, "--out=run") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("run/result.json").exists()


def test_images_on_which_nothing_is_found_are_a_warning(tmp_path, monkeypatch):
    Path("rounded_for_a_test.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Rounded(nn.Module):\n"
        "    def forward(self, x):\n        return (x * 16).round() / 16\n"
        "def make():\n    torch.manual_seed(1)\n"
        "    return nn.Sequential(Rounded(), nn.Flatten(), nn.Linear(64, 10))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = curve(PLAN.model_copy(update={"model": "rounded_for_a_test:make"}), Context(out=Path("run")))
    assert outcome.warning.startswith("On ") and outcome.warning in outcome.sentences
    assert outcome.result["unbroken"] > 0
