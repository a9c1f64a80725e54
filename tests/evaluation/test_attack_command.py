"""``advkit attack`` from its configuration to what it leaves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit import images, rng
from advkit.context import Context
from advkit.data.load import load_data
from advkit.errors import ConfigError, DataError, OutputError
from advkit.evaluation.classes import worst
from advkit.evaluation.command import attack
from advkit.evaluation.plan import Evaluation
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import build
from advkit.stats import accuracy


@pytest.fixture(autouse=True)
def here(judged, tmp_path, monkeypatch):
    """A folder with the judged model as clf.pt and its images as toy.npz."""
    monkeypatch.chdir(tmp_path)
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())


def plan(**values):
    given = {"model": "clf.pt", "data": "npz:toy.npz", "norm": "linf", "eps": 0.03, "attack": ("fgsm",)}
    return Evaluation(**{**given, **values})


def test_saves_what_it_reports():
    outcome = attack(plan(save="adv.npz"), Context(out=Path("run")))
    saved = np.load("adv.npz")
    broken = (saved["status"] == "broken").sum()
    assert broken == outcome.result["clean_correct"] - outcome.result["robust_correct"] > 0
    assert np.abs(saved["x"] - saved["original"]).max() <= 0.03 + 1e-6
    assert outcome.files == (Path("adv.npz"), Path("run"))
    with pytest.raises(OutputError, match=r"adv\.npz exists already"):
        attack(plan(save="adv.npz"), Context(out=Path("run")))


def test_the_report_follows_from_the_files_alone(judged):
    attack(plan(attack=("fgsm", "pgd")), Context(out=Path("run")))
    network, data = judged[0].network, np.load("toy.npz")
    result = json.loads(Path("run/result.json").read_text())
    images = np.fromfile("run/adversarial.bin", np.float32).reshape(data["x"].shape)
    broken = np.array([verdict["status"] == "broken" for verdict in result["verdicts"]])
    assert broken.any() and not broken.all() and not images[~broken].any()
    x = torch.from_numpy(np.where(broken[:, None, None, None], images, data["x"]))
    with torch.no_grad():
        right = network(x).argmax(1) == torch.from_numpy(data["y"])
    assert right.float().mean() == pytest.approx(result["robust_accuracy"])
    assert float((x - torch.from_numpy(data["x"])).abs().max()) <= 0.03 + 1e-6


def test_a_finished_run_tells_its_result_again():
    first = attack(plan(), Context(out=Path("run")))
    assert attack(plan(min_robust=1.0), Context(out=Path("run"))).result == first.result
    assert first.passed and not attack(plan(min_robust=1.0), Context(out=Path("run"))).passed


def test_a_finished_run_does_not_speak_for_another_model(judged):
    attack(plan(), Context(out=Path("run")))
    model, _ = judged
    with rng.scope("cpu", 2, "other"):
        other = build("small-cnn", shape=(1, 8, 8), classes=4)
    save_model(Model(other, model.card), "clf.pt", overwrite=True)
    with pytest.raises(ConfigError, match="did not begin with the same model"):
        attack(plan(), Context(out=Path("run")))


def test_a_function_is_given_the_shape_that_was_said(monkeypatch, tmp_path):
    (tmp_path / "made_for_a_test.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = plan(model="made_for_a_test:make", shape=(1, 8, 8))
    outcome = attack(said, replace(Context(), dry_run=True))
    assert outcome.result["n"] == 30
    with pytest.raises(ConfigError, match="name the data with --data"):
        attack(said.model_copy(update={"data": None}), Context())


@pytest.fixture
def levels(judged):
    """The judged images as 8-bit levels, in toy8.npz."""
    _, data = judged
    x = images.to_uint8(data.images)
    np.savez("toy8.npz", x=x.numpy(), y=data.labels.numpy())
    return x


def test_a_folder_of_png_files_holds_exactly_what_was_judged(levels, judged):
    said = plan(data="npz:toy8.npz", eight_bit=True, attack=("pgd",))
    outcome = attack(said.model_copy(update={"save": "adv"}), Context(out=Path("run")))
    attack(said.model_copy(update={"save": "adv.npz"}), Context(out=Path("again")))
    assert outcome.result["eight_bit"] and outcome.result["robust_correct"] < outcome.result["clean_correct"]
    read, kept = load_data("folder:adv", "test"), np.load("adv.npz")
    files = sorted(Path("adv/test").rglob("*.png"))
    order = [int(file.name.partition("-")[0]) for file in files]
    x, y = read.batch(torch.arange(len(read)))
    assert torch.equal(x, torch.from_numpy(kept["x"])[order])
    assert torch.equal(y, torch.from_numpy(kept["y"])[order])
    broken = [file.stem.endswith("-broken") for file in files]
    model, _ = judged
    with torch.no_grad():
        assert (model(x[broken]).argmax(1) != y[broken]).all()
    again = attack(plan(data="folder:adv", attack=("noise",)), Context(out=Path("reread")))
    assert again.result["clean_correct"] == outcome.result["robust_correct"]


def test_a_folder_is_refused_where_rounding_could_undo_what_was_found(levels):
    with pytest.raises(OutputError, match="add --eight-bit"):
        attack(plan(save="adv"), Context())
    Path("mine").mkdir()
    Path("mine/file").touch()
    with pytest.raises(OutputError, match="mine exists already"):
        attack(plan(save="mine", eight_bit=True), Context())
    with pytest.raises(OutputError, match="unknown kind"):
        attack(plan(save="adv.gif"), Context())
    with pytest.raises(DataError, match="no multiples of 1/255"):
        attack(plan(eight_bit=True), Context(out=Path("run")))


def test_a_run_in_8_bits_is_another_run(levels):
    attack(plan(data="npz:toy8.npz"), Context(out=Path("run")))
    with pytest.raises(ConfigError, match="eight_bit was False, is now True"):
        attack(plan(data="npz:toy8.npz", eight_bit=True), Context(out=Path("run")))


STEPPED = """
from torch import nn
import torch

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.levels, self.body = Levels(), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    def forward(self, x):
        return self.body(self.levels(x))

class Levels(nn.Module):
    def forward(self, x):
        return (x * 15).round() / 15
"""


def test_a_doubt_stands_out_and_its_remedy_can_be_typed(monkeypatch, tmp_path):
    (tmp_path / "stepped_for_a_test.py").write_text(STEPPED)
    monkeypatch.syspath_prepend(tmp_path)
    said = plan(model="stepped_for_a_test:Net", attack=("pgd",))
    outcome = attack(said, Context(out=Path("hidden")))
    assert outcome.warning.startswith("Do not believe this number yet: the gradient is zero")
    assert outcome.warning in outcome.sentences
    assert [table.title for table in outcome.tables[1:]] == [
        "reasons for doubt",
        "checks that raise no doubt",
        "by class",
    ]
    assert outcome.next[0].endswith("--norm linf --eps 0.03 --attack pgd --bpda levels")
    seen = attack(said.model_copy(update={"bpda": ("levels",)}), Context(out=Path("seen")))
    assert seen.warning == "" and seen.sentences[1].startswith("Believe this number")
    assert seen.result["robust_correct"] < outcome.result["robust_correct"]
    with pytest.raises(ConfigError, match="did you mean 'levels'"):
        attack(said.model_copy(update={"bpda": ("level",)}), Context(dry_run=True))


def test_tells_the_accuracies_of_each_class():
    outcome = attack(plan(), Context(out=Path("run")))
    verdicts, table = outcome.result["verdicts"], outcome.tables[-1]
    assert table.title == "by class" and [row[0] for row in table.rows] == ["0", "1", "2", "3"]
    for row in table.rows:
        found = [verdict["status"] for verdict in verdicts if verdict["label"] == int(row[0])]
        clean, robust = len(found) - found.count("misclassified"), found.count("robust")
        assert row[1:] == (str(len(found)), accuracy(clean, len(found)), accuracy(robust, len(found)))
    assert sum(int(row[1]) for row in table.rows) == 30


def test_of_many_classes_tells_the_worst():
    rows, title = worst([(share, str(share)) for share in (9, 3, 11, 1, 5, 7, 2, 8, 4, 10, 6, 0)])
    assert rows == [str(share) for share in range(10)] and title == "the worst 10 of 12 classes"
    assert worst([(1, "a"), (0, "b")]) == (["a", "b"], "by class")
