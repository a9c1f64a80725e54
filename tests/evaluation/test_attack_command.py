"""``advkit attack`` from its configuration to what it leaves."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.commands.attack import run as attack
from advkit.core import files, rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, OutputError
from advkit.core.images import to_uint8
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.evaluation.ledger import Adversarial, ImageWriter, read_image
from advkit.evaluation.result import Verdict
from advkit.evaluation.save import save
from advkit.evaluation.settings import Evaluation
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model


@pytest.fixture(autouse=True)
def here(judged, tmp_path, monkeypatch):
    """A folder with the judged model as clf.pt and its images as toy.npz, and as 8-bit levels in toy8.npz."""
    monkeypatch.chdir(tmp_path)
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    np.savez("toy8.npz", x=to_uint8(data.images).numpy(), y=data.labels.numpy())


def plan(**values):
    given = {"model": "clf.pt", "data": "npz:toy.npz", "norm": "linf", "eps": 0.03, "attack": ("fgsm",)}
    return Evaluation(**{**given, **values})


def test_the_report_follows_from_the_files_alone(judged):
    outcome = attack(plan(save="adv.npz"), Context(out=Path("run")))
    network, saved = judged[0].network, np.load("adv.npz")
    result = files.read_json(Path("run/result.json"))
    assert result == outcome.result and outcome.files == (Path("adv.npz"), Path("run"))
    images = np.fromfile("run/adversarial.bin", np.float32).reshape(saved["x"].shape)
    broken = np.array([verdict["status"] == "broken" for verdict in result["verdicts"]])
    assert broken.any() and not broken.all() and not images[~broken].any()
    x = np.where(broken[:, None, None, None], images, saved["original"])
    assert (x == saved["x"]).all() and ((saved["status"] == "broken") == broken).all()
    with torch.no_grad():
        right = network(torch.from_numpy(x)).argmax(1).numpy() == saved["y"]
    assert right.mean() == pytest.approx(result["robust_accuracy"])
    assert np.abs(x - saved["original"]).max() <= 0.03 + 1e-6
    # A finished run tells its result again, to whoever asks the same.
    with pytest.raises(OutputError, match=r"adv\.npz"):
        attack(plan(save="adv.npz"), Context(out=Path("run")))
    assert attack(plan(batch_size=3), Context(out=Path("run"))).result == result
    with pytest.raises(ConfigError, match="eight_bit"):
        attack(plan(eight_bit=True), Context(out=Path("run")))


def test_a_folder_of_png_files_holds_exactly_what_was_judged(judged):
    said = plan(data="npz:toy8.npz", eight_bit=True, attack=("pgd",), save="adv")
    outcome = attack(said, Context(out=Path("run")))
    assert outcome.result["eight_bit"] and outcome.result["robust_correct"] < outcome.result["clean_correct"]
    read = load_data("folder:adv", "test")
    broken = [file.stem.endswith("-broken") for file in sorted(Path("adv/test").rglob("*.png"))]
    x, y = read.batch(torch.arange(len(read)))
    with torch.no_grad():
        right = judged[0](x).argmax(1) == y
    assert not right[broken].any() and int(right.sum()) == outcome.result["robust_correct"]


@pytest.mark.parametrize(("count", "classes", "share"), [(450, 12, 1.0), (230, 10, 0.3), (7, 1, 0.0)])
def test_what_is_saved_is_what_was_found(count, classes, share):
    """Of more images than are in memory at a time, more classes than digits, and names of any characters."""
    dice = random.Random(count)
    levels = (rng.uniform(torch.arange(count), (1, 2, 2)) * 255).round().to(torch.uint8)
    names = ("T-shirt/top", "1", " ", *"defghijkl")[:classes]
    labels = torch.arange(count) % classes
    data = Data("toy", "test", levels, labels, names, torch.arange(count) * 3)
    status = ["broken" if dice.random() < share else "robust" for _ in range(count)]
    found = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    with ImageWriter(Path("adversarial.bin"), count, (1, 2, 2)) as writer:
        for row in dice.sample(range(count), count):
            if status[row] == "broken":
                writer.write(row, found[row])
    assert Path("adversarial.bin").stat().st_size == 16 * count
    verdicts = [Verdict(id=3 * k, label=k % classes, status=what) for k, what in enumerate(status)]
    adversarial = Adversarial(Path(), data, verdicts)
    broken = torch.tensor([what == "broken" for what in status])
    assert len(adversarial) == count and torch.equal(adversarial.broken, broken)
    x = torch.where(broken[:, None, None, None], found, levels / 255)
    assert torch.equal(adversarial[torch.tensor([count - 1, 0])], x[[count - 1, 0]])
    if share:
        assert torch.equal(read_image(Path("adversarial.bin"), 5, (1, 2, 2)), found[5] * broken[5])
    for place in ("adv.npz", "adv.png", "adv"):
        save(Path(place), data, adversarial, type("Result", (), {"verdicts": verdicts}))
    kept = np.load("adv.npz")
    assert (kept["x"] == x.numpy()).all() and (kept["original"] == (levels / 255).numpy()).all()
    assert kept["id"].tolist() == data.ids.tolist() and kept["status"].tolist() == status
    assert kept["y"].tolist() == labels.tolist()
    shown = min(int(broken.sum()) or count, 400)
    sheet = np.asarray(Image.open("adv.png").convert("L"))
    assert sheet.shape[0] / sheet.shape[1] == pytest.approx(
        -(-shown // 20) / 20, rel=0 if shown == 400 else 0.4
    )
    digits = len(str(classes - 1))
    folders = [
        f"{at:0{digits}d}" + {0: "-T-shirt-top", 1: "", 2: ""}.get(at, f"-{names[at]}")
        for at in range(classes)
    ]
    assert sorted(path.name for path in Path("adv/test").iterdir()) == sorted(folders)
    for row, what in enumerate(status):
        file = Path("adv/test", folders[row % classes], f"{3 * row:06d}-{what}.png")
        assert (np.asarray(Image.open(file)) == (x[row, 0] * 255).round().numpy()).all()
    assert sum(1 for _ in Path("adv").rglob("*.png")) == count and Path("adv/train").is_dir()


def test_what_cannot_be_saved_is_refused_before_the_work():
    Path("mine").mkdir()
    Path("mine/file").touch()
    for said, key in (({"save": "adv"}, "--eight-bit"), ({"save": "mine", "eight_bit": True}, "mine")):
        with pytest.raises(OutputError, match=key):
            attack(plan(**said), Context())
    with pytest.raises(OutputError, match="gif"):
        attack(plan(save="adv.gif"), Context())
    with pytest.raises(DataError):
        attack(plan(eight_bit=True), Context(out=Path("run")))


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
    data = load_data("npz:toy.npz")
    x, _ = data.batch(torch.arange(len(data)))
    answers = load_model("stepped_for_a_test:Net", shape=(1, 8, 8))(x)
    np.savez("own.npz", x=data.images.numpy(), y=answers.argmax(1).numpy())
    said = plan(model="stepped_for_a_test:Net", data="npz:own.npz", attack=("pgd",), shape=(1, 8, 8), n=12)
    assert attack(said, replace(Context(), dry_run=True)).result["n"] == 12
    with pytest.raises(ConfigError, match="--data"):
        attack(said.model_copy(update={"data": None}), Context())
    outcome = attack(said, Context(out=Path("hidden")))
    assert outcome.warning and outcome.warning in outcome.sentences
    assert outcome.next[0].endswith("--norm linf --eps 0.03 --attack pgd --bpda levels")
    seen = attack(said.model_copy(update={"bpda": ("levels",)}), Context(out=Path("seen")))
    doubts = {check["name"] for check in seen.result["checks"] if check["verdict"] == "doubt"}
    assert doubts <= {"effort"} and seen.result["robust_correct"] < outcome.result["robust_correct"]
    with pytest.raises(ConfigError, match="'levels'"):
        attack(said.model_copy(update={"bpda": ("level",)}), Context(dry_run=True))
