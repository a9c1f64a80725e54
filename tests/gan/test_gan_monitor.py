"""The monitor sees a collapse and says nothing of a good run; what is said of a finished one."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.errors import DivergedError
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder
from advkit.data.load import load_data
from advkit.gan.adversarial import GanGame
from advkit.gan.judge import coverage, judge
from advkit.gan.metrics.distances import frechet
from advkit.gan.monitor import Monitor, covered, diversity_within, warnings
from advkit.gan.result import GanTrainingResult, recent
from advkit.gan.sample_logger import BEST, SampleLogger
from advkit.gan.train import train_gan
from advkit.models.architectures.small_gans import DenseGenerator
from advkit.models.checkpoint import load_checkpoint
from advkit.report.gan import trained


def digits(n: int, split: str = "train") -> tuple[Tensor, Tensor]:
    return load_data("digits", split).batch(torch.arange(n))


def test_what_is_told_of_samples_is_measured_beside_real_images():
    """Diversity of the first 100 of each, the rest of all; by the judge's features and by plain distances."""
    (real, labels), (drawn, asked) = digits(300), digits(150, "test")
    drawn = 0.5 * drawn
    told = Monitor(real, labels).look(drawn, asked)
    spread = [torch.pdist(images[:100].flatten(1)).mean() for images in (drawn, real)]
    assert told["diversity"] == pytest.approx(float(spread[0] / spread[1]))
    within = []
    for images, classes in ((drawn, asked), (real, labels)):
        apart, alike = torch.cdist(images.flatten(1), images.flatten(1)), classes[:, None] == classes
        within.append(apart[alike.triu(1)].mean())
    assert told["diversity_within"] == pytest.approx(float(within[0] / within[1]), rel=1e-4)
    seen, known = judge().features(drawn), judge().features(real)
    assert told["fid"] == pytest.approx(frechet(seen, known))
    assert told["coverage"] == coverage(known, seen) != coverage(seen, known)
    assert "diversity_within" not in Monitor(real, labels).look(drawn)
    assert "diversity_within" not in Monitor(real, labels).look(drawn[:10], torch.arange(10))  # no pairs
    assert math.isnan(diversity_within(real[:3], torch.arange(3)))
    alike = Monitor(real[:1].expand(9, -1, -1, -1), labels[:9]).look(real, labels)
    assert "diversity_within" not in alike and math.isfinite(alike["diversity"])
    wide = rng.uniform(torch.arange(60), (4, 8, 8))
    assert Monitor(wide, torch.arange(60) % 10).look(wide)["fid"] < 1e-3


@pytest.mark.parametrize(("threes", "missing"), [(2, [3]), (4, [])])
def test_a_digit_is_missing_below_a_tenth_of_its_share(threes, missing):
    images = load_data("digits", "train").images
    read = judge().digits(images)
    rows = [(read == digit).nonzero()[:30, 0] for digit in range(10)]
    monitor = Monitor(images[torch.cat(rows)] / 255, torch.arange(10).repeat_interleave(30))
    others = torch.cat([rows[digit] for digit in range(10) if digit != 3])
    drawn = torch.cat([rows[3][:threes], others, others])[:300]
    assert monitor.look(images[drawn] / 255)["missing"] == missing


@pytest.mark.parametrize(("wrong", "reads"), [(39, True), (41, False)])
def test_of_digits_is_spoken_where_the_judge_reads_four_fifths(wrong, reads):
    images = load_data("digits", "train").images[:200]
    labels = judge().digits(images)
    labels[:wrong] = (labels[:wrong] + 1) % 10
    assert ("missing" in Monitor(images / 255, labels).look(images / 255)) == reads


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        ({"diversity": 0.399, "missing": [1], "d_accuracy": 0.981}, ["collapse", "won"]),
        ({"diversity": 0.401, "missing": [1], "d_accuracy": 0.979}, ["missing"]),
        ({"diversity": 0.9, "diversity_within": 0.399, "missing": [2]}, ["collapse"]),
        ({"diversity": 0.9, "diversity_within": 0.401, "missing": []}, []),
        ({"d_accuracy": 1.0}, []),  # the first steps, of which no samples were drawn
    ],
)
def test_signs(row, kinds):
    assert sorted(warnings(row)) == kinds


def test_looking_at_samples_leaves_the_training_alone(config):
    """A run that looks often ends with the weights of one that looks once."""
    data = load_data("digits", "train", limit=100)
    often, once = (
        train_gan(config(arch="conv-gan", steps=6, sample_every=every), data).models["generator"].hash
        for every in (3, 6)
    )
    assert often == once


@pytest.mark.parametrize(("figure", "kept"), [("fid", [5.0, 2.0]), ("coverage", [5.0, 6.0, 7.0])])
def test_the_best_average_is_the_first_of_the_best(figure, kept, data, config, tmp_path, monkeypatch):
    seen: list[float] = []
    save = "advkit.gan.sample_logger.save_model"
    monkeypatch.setattr(save, lambda model, path, overwrite: seen.append(model))
    game = GanGame(config(keep_by=figure), data, torch.device("cpu"))
    logger = SampleLogger(game, SimpleNamespace(path=tmp_path, history=lambda: []))
    for value in (5.0, 2.0, 6.0, 2.0, 7.0, 7.0):
        game.average = lambda value=value: value
        logger.keep_best({figure: value})
    assert seen == kept and abs(logger.best) == kept[-1]


def test_the_best_average_is_kept_and_a_resumed_run_knows_it(config, tmp_path, monkeypatch):
    data = load_data("digits", "train", limit=200)
    settings = config(steps=8, sample_every=2, checkpoint_every=4)
    worse = iter([5.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("advkit.gan.monitor.frechet", lambda a, b: next(worse))
    with RunFolder.open("gan-train", "toy", settings, tmp_path / "run") as run:
        train_gan(settings, data, run=run)
        assert [row["fid"] for row in run.history() if "fid" in row] == [5.0, 2.0, 3.0, 4.0]
        assert load_checkpoint(run.path / BEST).card.training["step"] == 4
        assert SampleLogger(GanGame(settings, data, torch.device("cpu")), run).best == -2.0


def test_a_collapse_is_said_once_and_can_stop_a_run(config, monkeypatch):
    """Every latent vector is the same, so that samples are equal whatever is learnt."""
    messages: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, message: messages.append(message))
    monkeypatch.setattr(DenseGenerator, "draw", lambda self, key: torch.zeros(len(key), self.latent_dim))
    data = load_data("digits", "train", limit=100)
    train_gan(config(steps=12, sample_every=4), data, progress=Progress())
    assert [message[:7] for message in messages if message.startswith("step")] == ["step 4:"]
    with pytest.raises(DivergedError):
        train_gan(config(steps=12, sample_every=4, stop_on_collapse=True), data)


ROWS = [
    {"step": step, "d_loss": step / 7, "g_loss": 1.5, "d_accuracy": step / 2000, "fid": 3.0 + step}
    for step in (50, 400, 700, 701, 900, 1200)
]


def test_what_is_reported_are_means_over_the_last_500_steps():
    """A row counts as often as it covers steps, if it ends among them; 700 does not."""
    assert covered(ROWS) == [50, 350, 300, 1, 199, 300] and covered([]) == []
    told = recent(ROWS, ["d_loss", "d_accuracy"])
    mean = np.average([701, 900, 1200], weights=[1, 199, 300])
    assert told == pytest.approx({"steps": 500, "d_loss": mean / 7, "d_accuracy": mean / 2000, "fid": 1203})
    first = [{key: row[key] for key in row if key != "fid"} for row in ROWS[:-1]]
    assert recent([*first, ROWS[-1]], ["d_loss"])["fid"] == 1203  # that of the last row, where it has one
    assert "fid" not in recent([*ROWS, {**first[0], "step": 1300}], ["d_loss"])


def result(accuracy: float = 0.6, **config) -> GanTrainingResult:
    told = {
        "kind": "gan",
        "arch": "conv-gan",
        "steps": 1200,
        "augment": [],
        "packing": 1,
        "conditional": "no",
    }
    last = {"steps": 500, "d_loss": 0.69314, "d_accuracy": accuracy, "d_accuracy_real": 0.6543}
    last |= {"d_accuracy_fake": 0.5, "g_loss": 1.23456, "augmented": 0.25, "diversity": 0.876, "fid": 12.345}
    models = {
        name: {"name": f"toy-{name}", "hash": "0", "parameters": 1}
        for name in ("generator", "ema", "discriminator")
    }
    return GanTrainingResult(
        config={**told, "data": "my data", **config},
        seed=0,
        models=models,
        last={**last, "coverage": 0.5},
        data={"name": "toy", "split": "train", "fingerprint": "0", "n": 9},
        images_per_second=12345.6,
        seconds=1.0,
        resumed_at=0,
        warnings=(),
        environment={},
        best={"by": "fid", "step": 800},
    )


def test_a_finished_run_is_told_in_figures_and_commands():
    told, changed = trained(result(), Path("run")), trained(result(augment=["shift"]), Path("run"))
    (row,) = told.tables[0].rows
    assert row == ("0.693", "65.4%", "50.0%", "1.235", "88%", "12.35", "50%", "12,346")
    assert changed.tables[0].rows[0][4] == "25%" and len(told.tables[0].columns) == 8
    assert "500" in told.tables[0].title and any("800" in said for said in told.sentences)
    for data, flag in (("my data", " --data 'my data'"), ("digits", "")):
        line = trained(result(data=data), Path()).next[1]
        assert line == f"advkit finetune --model toy-discriminator{flag} --out clf.pt"
    for change in ({"packing": 2}, {"conditional": "projection"}):  # not a discriminator of one image
        words = [line.split()[1] for line in trained(result(**change), Path()).next]
        assert words == ["gan-sample", "models"]
    assert len(trained(result(kind="vae"), Path()).next) == 2


def test_the_balance_is_told_from_the_accuracy():
    """What is said changes at 45, 75 and 98 %, and nowhere else."""

    def said(accuracy: float) -> str:
        return re.sub(r"classified \S+", "", trained(result(accuracy), Path()).sentences[0])

    groups = [(0.1, 0.4499), (0.4501, 0.7499), (0.7501, 0.9799), (0.9801, 1.0)]
    assert all(said(low) == said(high) for low, high in groups)
    assert len({said(low) for low, _ in groups}) == 4


def test_the_curves_are_of_every_row_that_counts(tmp_path, drawn):
    """Rows that cover less than a fifth of the steps of the longest would show noise."""
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    losses, accuracy = (one for one in trained(result(), tmp_path).pictures if one.svg)
    assert list(drawn(losses.svg)) == ["D loss", "G loss"]
    places = [(step - 400) / 800 for step in (400, 700, 900, 1200)]
    (line,) = drawn(accuracy.svg).values()
    assert [across for across, _ in line] == pytest.approx(places, abs=1e-3)
    assert [height for _, height in line] == pytest.approx([0.2, 0.35, 0.45, 0.6], abs=1e-3)
