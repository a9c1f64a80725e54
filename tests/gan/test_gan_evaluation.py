"""gan-eval: what it leaves, what it says, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from advkit.commands import gan_eval as command
from advkit.commands.gan_eval import run as evaluate
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.stats import accuracy
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.gan.evaluation import subject
from advkit.gan.evaluation.reference import Reference, chosen
from advkit.gan.evaluation.result import GanEvaluationResult
from advkit.gan.evaluation.settings import GanEvaluation
from advkit.gan.evaluation.subject import open_subject
from advkit.gan.judge import judge
from advkit.gan.metric import METRICS
from advkit.gan.metrics import classification_accuracy
from advkit.gan.sample import sample
from advkit.models.card import DataFacts, Shape
from advkit.models.checkpoint import save_model
from advkit.models.store import Store
from advkit.report.gan import evaluated as outcome

FEW = ("fid", "modes")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(classification_accuracy, "UPDATES", 5)
    monkeypatch.setattr(command, "GRID", 3)


@pytest.fixture
def make(built):
    """Stores a small untrained generator under a name."""

    def of(name: str, seed: int = 0, shape: Shape = (1, 8, 8)) -> str:
        facts = DataFacts(name="digits", split="train", fingerprint="", n=1)
        about = {"data": facts, "training": {"step": 7, "batch_size": 8}}
        model = built("mlp-gan-generator", "generator", shape=shape, seed=seed, about=about, hidden=(8,))
        Store().add(model, name)
        return name

    return of


def test_a_run_leaves_figures_with_floors_and_grids(make):
    told = evaluate(GanEvaluation(model=make("toy"), n=40), Context(out=Path("run")))
    result = GanEvaluationResult.load("run")
    assert files.read_json(Path("run/result.json")) == told.result
    assert result.judge == judge().hash and result.judge[:12] in " ".join(told.sentences)
    keys = {figure.key for entry in METRICS for figure in entry.facts["figures"]}
    (one,) = result.generators
    assert {figure.key for figure in result.figures} == keys == set(one.values) and not result.skipped
    assert (result.n, one.images_seen, one.training_seconds, one.classes) == (40, 56, None, None)
    assert one.parameters == 100 * 8 + 8 + 4 * 8 + 8 * 64 + 64
    assert sum(one.histogram) == pytest.approx(1) == pytest.approx(sum(result.real_histogram))
    floors = {figure.key: figure.floor for figure in result.figures}
    assert one.values["fid"] > 3 * floors["fid"] and one.values["coverage"] < floors["coverage"] / 2
    assert result.judge_accuracy is not None and result.judge_accuracy > 0.8
    zoom = 800 // (3 * 9 + 1)
    for picture, rows in zip(told.pictures, (3, 2, 3), strict=True):
        with Image.open(picture.path) as image:
            assert image.size == ((3 * 9 + 1) * zoom, (rows * 9 + 1) * zoom)
    rows = {row[0]: row for row in told.tables[0].rows}
    assert {figure.name for figure in result.figures} == {*rows}
    score = accuracy(round(one.values["cas"] * 40), 40)  # with its interval, as every accuracy
    assert rows["accuracy score"][1] == score and accuracy(round(result.judge_accuracy * 40), 40) in " ".join(
        told.sentences
    )


def test_several_side_by_side_get_what_each_gets_alone(make):
    names = (make("one"), make("two", seed=1))
    told = evaluate(GanEvaluation(model=names, n=40, metrics=FEW), Context(out=Path("both")))
    both = GanEvaluationResult.load("both")
    evaluate(GanEvaluation(model="two", n=40, metrics=FEW), Context(out=Path("alone")))
    alone = GanEvaluationResult.load("alone")
    assert both.generators[1] == alone.generators[0] and both.figures == alone.figures
    assert told.tables[0].columns == ("", "one", "two", "floor", "")
    files = ["one/grid.png", "one/nearest.png", "two/grid.png", "two/nearest.png", "real.png"]
    assert [str(picture.path.relative_to("both")) for picture in told.pictures] == files
    with pytest.raises(ConfigError):
        evaluate(GanEvaluation(model=("one", "one")), Context())


def test_training_time_is_read_from_the_run(make):
    Path("trained").mkdir()
    model = Store().get(make("toy"))
    save_model(model, "trained/ema.safetensors")
    for digest, seconds in ((model.hash, 90), ("another", None)):
        told = {"models": {"ema": {"hash": digest}}, "seconds": 90}
        Path("trained/result.json").write_text(json.dumps(told), encoding="utf-8")
        assert open_subject("trained", "cpu").seconds == seconds
        assert open_subject("trained/ema.safetensors", "cpu").seconds == seconds
    assert open_subject("toy", "cpu").seconds is None


@pytest.fixture
def given(monkeypatch, built):
    """Whatever is opened is this model."""

    def of(*what, **config):
        model = built(*what, **config)
        monkeypatch.setattr(subject, "load_model", lambda name, device: model)
        return model

    return of


def test_a_vae_is_its_decoder(given):
    small = {"decoder_config": {"channels": (8, 8, 8)}, "channels": (4, 4), "hidden": 8}
    model = given("conv-vae", "vae", **small)
    opened = open_subject("vae", "cpu")
    drawn, labels = opened.draw(5, 0)
    assert drawn.shape == (5, 1, 8, 8) and labels is None and opened.classes is None
    assert opened.parameters == sum(t.numel() for t in model.network.decoder.state_dict().values() if t.dim())
    assert opened.card.role == "vae" and opened.hash == model.hash


def test_a_conditional_one_is_asked_for_all_classes_alike(given):
    inner = {"generator": "mlp-gan-generator", "generator_config": {"hidden": (4,)}}
    given("conditional-generator", "generator", 10, **inner)
    opened = open_subject("conditional", "cpu")
    drawn, labels = opened.draw(2000, 0)
    assert torch.bincount(labels, minlength=10).min() > 150 and opened.images_seen is None
    assert torch.equal(drawn[:150], sample(opened.generator, 150, 0, labels[:150])[0])


def test_a_dry_run_and_what_cannot_be_measured_leave_nothing(make, given):
    said = evaluate(GanEvaluation(model=make("toy"), n=50), Context(dry_run=True))
    assert said.result == {"n": 50, "metrics": [entry.name for entry in chosen([])]}
    with pytest.raises(DataError):
        evaluate(GanEvaluation(model=make("wide", shape=(1, 9, 9))), Context())
    with pytest.raises(ConfigError):
        evaluate(GanEvaluation(model="toy", metrics=("fdi",)), Context())
    given("mlp", "classifier", 3, hidden=())
    with pytest.raises(ModelError):
        open_subject("clf", "cpu")
    given("mlp-gan-generator", "generator", hidden=(4,))
    with pytest.raises(ConfigError):
        evaluate(GanEvaluation(model="nameless"), Context())
    assert not Path("runs").exists()


def test_few_images_are_as_many_as_there_are():
    train, test = load_data("digits", "train"), load_data("digits")
    assert Reference(train, test, judge(), n=10_000).n == 359
    assert Reference(train.limit(101), test, judge(), n=10_000).n == 50
    assert Reference(train.limit(20), test.limit(10), judge(), n=10_000).n == 10
    for few in ((train, test.limit(9)), (train.limit(19), test)):
        with pytest.raises(ConfigError):
            Reference(*few, judge(), n=10_000)


def test_the_floors_images_are_in_neither_set():
    reference = Reference(load_data("digits", "train"), load_data("digits"), judge(), n=300)
    floor = reference.floor
    assert len(floor.generated) == 300 and len(floor.train) == 1438 - 300
    rows = torch.cat([floor.generated.images, floor.train]).flatten(1).tolist()
    assert sorted(rows) == sorted(reference.train.images[:].flatten(1).tolist())
    everything = reference.comparison(floor.generated)
    assert torch.equal(everything.train, reference.train.images[:]) and everything.real is floor.real


@pytest.mark.parametrize(("wrong", "digits"), [(20, True), (21, False)])
def test_answers_count_where_the_judge_reads_four_fifths(wrong, digits):
    data = load_data("digits", "train").limit(300)
    labels = judge().digits(data.images[:100])
    labels[:wrong] = (labels[:wrong] + 1) % 10
    test = replace(data.limit(100), labels=labels)
    reference = Reference(data, test, judge(), n=100)
    assert reference.accuracy == pytest.approx(1 - wrong / 100) and reference.digits == digits
    letters = Reference(replace(data, class_names=tuple("abcdefghij")), test, judge(), n=50)
    assert not letters.digits and letters.accuracy is None and letters.real.features.shape == (50, 64)


def test_stacked_digits_have_a_thousand_modes():
    digits = load_data("digits", "train").limit(120)
    modes = digits.labels.view(40, 3) @ torch.tensor([100, 10, 1])
    names = tuple(f"{mode:03d}" for mode in range(1000))
    data = Data("stacks", "train", digits.images[:].reshape(40, 3, 8, 8), modes, names, torch.arange(40))
    reference = Reference(data, data, judge(), n=20)
    found = METRICS.get("modes")(reference.floor)
    assert 15 <= found["modes"] <= 20 and found["mode_kl"] > 3
    assert reference.real.features.shape == (20, 192)


def test_a_result_is_told_in_figures_and_other_files_are_refused(make):
    config = GanEvaluation(model=make("toy"), n=20, metrics=("modes", "precision-recall"))
    values = evaluate(config, Context(out=Path("run"))).result
    result = GanEvaluationResult.load("run")
    (one,) = result.generators
    own = {"values": {"modes": 7.0, "precision": 0.12345}, "histogram": (0.9, 0.1, *[0.0] * 8)}
    own |= {"parameters": 1234567, "images_seen": 12345, "training_seconds": 90.0}
    other = {"histogram": (), "images_seen": None, "training_seconds": None, "name": "other"}
    told = outcome(result.model_copy(update={"generators": (one.model_copy(update=own),)}), Path("run"))
    figures = {row[0]: row[1] for row in told.tables[0].rows}
    assert figures == {"precision": "0.123", "recall": "-", "modes": "7", "KL of modes": "-"}
    assert told.tables[1].rows[0][2:] == ("1,234,567", "12,345", "1.5 min")
    shares = [row[1:] for row in told.tables[2].rows]
    assert [row[0] for row in shares[:3]] == ["90.0 %", "10.0 %", "0.0 %"]
    assert [row[1] for row in shares] == [f"{100 * share:.1f} %" for share in result.real_histogram]
    both = tuple(one.model_copy(update=changes) for changes in (own, other))
    told = outcome(result.model_copy(update={"generators": both}), Path("run"))
    assert told.tables[1].rows[1][3:] == ("-", "-") and told.tables[2].rows[0][1:3] == ("90.0 %", "-")
    assert told.tables[2].columns[1:3] == ("toy", "other") == told.tables[0].columns[1:3]
    names = tuple("abcdefghijk")
    assert len(outcome(result.model_copy(update={"class_names": names}), Path("run")).tables) == 2
    for changed in ({"version": 99}, {"schema": "advkit/curve"}):
        Path("other.json").write_text(json.dumps({**values, **changed}), encoding="utf-8")
        with pytest.raises(DataError):
            GanEvaluationResult.load("other.json")
    with pytest.raises(DataError):
        GanEvaluationResult.load("nowhere.json")
