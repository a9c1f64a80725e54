"""``advkit corrupt``: what is counted, resumed, refused and compared with a baseline."""

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

import advkit
import advkit.functions
from advkit.commands.corrupt import run as corrupt
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError
from advkit.core.journal import Journal
from advkit.core.run_list import read
from advkit.core.runs import RunFolder
from advkit.data.corruption import corrupted
from advkit.data.subjects import Subject
from advkit.evaluation.corruptions.measure import measure, relative
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.evaluation.corruptions.settings import COMMON, Corruptions
from advkit.models.checkpoint import save_model

KINDS = ("gaussian-noise", "contrast", "rotate")
PLAN = Corruptions(model="clf.pt", data="npz:toy.npz", corruptions=KINDS, severities=(1, 5))


@pytest.fixture
def subject(judged):
    return Subject.of(*judged)


@pytest.fixture
def here(tmp_path, monkeypatch, judged):
    """A folder with the classifier, a worse one, and the images."""
    monkeypatch.chdir(tmp_path)
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    with rng.scope("cpu", 0, "worse"), torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        kept = last.weight.clone()
        last.weight += 0.3 * torch.randn_like(kept)
        save_model(model, "worse.pt")
        last.weight.copy_(kept)


def test_counts_what_the_model_says(subject, judged):
    model, data = judged
    mild = ("gaussian-noise", "jpeg", "rotate")
    result = measure(subject, PLAN.model_copy(update={"corruptions": mild, "severities": (1, 3)}))
    right = {}
    for name in mild:
        for severity in (1, 3):
            x = corrupted(data.images, data.ids, name, severity)
            right[name, severity] = model(x).argmax(1) == data.labels
    assert {(row.corruption, row.severity): row.correct for row in result.rows} == {
        which: int(each.sum()) for which, each in right.items()
    }
    every = torch.stack([*right.values()])
    assert 0.1 < every.float().mean() < 0.95
    assert result.mean_accuracy == pytest.approx(float(every.float().mean()))
    assert result.scores == pytest.approx(every.float().mean(0).tolist())
    clean = model(data.images).argmax(1) == data.labels
    assert result.clean_correct == int(clean.sum()) == 28
    always = clean & every.all(0)
    status = [
        "misclassified" if not c else "robust" if a else "broken" for c, a in zip(clean, always, strict=True)
    ]
    assert [verdict.status for verdict in result.verdicts] == status
    assert result.robust_correct == int(always.sum()) > 0
    assert result.forwards == 30 * 7
    assert result.constants == "mnist-c"
    low, high = result.interval
    assert low < result.mean_accuracy < high and high - low < 0.3
    assert CorruptionResult.from_json(result.to_json()) == result


def test_progress_tells_the_accuracy_so_far(subject):
    told = MagicMock()
    result = measure(subject, PLAN, progress=told)
    said = [call.kwargs["mean accuracy"] for call in told.task().__enter__().advance.call_args_list]
    right = np.cumsum([len(result.rows) - verdict.errors for verdict in result.verdicts])
    assert said == pytest.approx(right / len(result.rows) / np.arange(1, 31))


def test_a_result_that_was_changed_is_refused(subject):
    result = measure(subject, PLAN)
    rows = (result.rows[0].model_copy(update={"correct": result.rows[0].correct - 1}), *result.rows[1:])
    for change in ({"rows": rows}, {"robust_correct": result.robust_correct + 1}):
        with pytest.raises(DataError):
            CorruptionResult.from_json(result.model_copy(update=change).to_json())


def test_order_repetition_and_batches_change_nothing(subject):
    result = measure(subject, PLAN)
    other = PLAN.model_copy(
        update={"batch_size": 7, "severities": (5, 1, 5), "corruptions": (*KINDS, "rotate")}
    )
    again = measure(subject, other)
    assert again.verdicts == result.verdicts and again.rows == result.rows
    assert measure(subject, PLAN.model_copy(update={"seed": 1})).verdicts != result.verdicts
    as_imagenet = measure(subject, PLAN.model_copy(update={"constants": "cifar-10-c"}))
    assert as_imagenet.constants == "cifar-10-c" and as_imagenet.rows != result.rows


def test_resumes(subject, tmp_path):
    result = measure(subject, PLAN)
    with RunFolder.open("corrupt", "toy", PLAN, tmp_path / "run") as run:
        measure(subject, PLAN, run=run)
    journal = Journal(tmp_path / "run" / "corrupted.jsonl", "advkit/corrupted", 1)
    journal.replace(journal.read()[:11])
    passes = []
    hook = subject.model.register_forward_hook(lambda *call: passes.append(len(call[2])))
    try:
        with RunFolder.open("corrupt", "toy", PLAN, tmp_path / "run") as run:
            again = measure(subject, PLAN.model_copy(update={"batch_size": 10}), run=run)
    finally:
        hook.remove()
    assert again.verdicts == result.verdicts
    assert len(passes) == 2 * 7  # not of the batch that was complete
    assert len(journal.read()) == 30


def test_relative_errors(subject):
    result = measure(subject, PLAN)

    def with_errors(*wrong):
        """Of each corruption so many images, in severity 5 alone."""
        verdicts = tuple(
            verdict.model_copy(
                update={"wrong": {name: (5,) for name, most in zip(KINDS, wrong, strict=True) if k < most}}
            )
            for k, verdict in enumerate(result.verdicts)
        )
        facts = {k: getattr(result, k) for k in CorruptionResult.model_fields}
        drop = ("verdicts", "n", "clean_correct", "clean_interval", "mean_accuracy", "interval", "rows")
        facts = {
            k: v for k, v in facts.items() if k not in (*drop, "robust_correct", "version", "schema_name")
        }
        return CorruptionResult.of(verdicts, **facts)

    found = relative(with_errors(6, 9, 2), "other", with_errors(12, 6, 0))
    assert found.errors == {KINDS[0]: pytest.approx(0.5), KINDS[1]: pytest.approx(1.5), KINDS[2]: None}
    assert found.mean_corruption_error == pytest.approx(1.0)
    assert found.mean_accuracy == pytest.approx(1 - 18 / 180)
    none = relative(with_errors(1, 1, 1), "other", with_errors(0, 0, 0))
    assert none.mean_corruption_error is None
    lines = [result.model_copy(update={"relative": one}).summary() for one in (None, none, found)]
    assert ["mean corruption error 100.0 % of other" in line for line in lines] == [False, False, True]
    for change in (
        {"severities": (1, 2)},
        {"seed": 9},
        {"constants": "imagenet-c"},
        {"verdicts": result.verdicts[1:]},
        {"data": result.data.model_copy(update={"fingerprint": "other"})},
    ):
        with pytest.raises(ConfigError) as refused:
            relative(result, "other", result.model_copy(update=change))
        assert refused.value.code == "not-comparable"


@pytest.mark.usefixtures("here")
def test_the_command(monkeypatch):
    one = corrupt(PLAN, Context(out=Path("run")))
    assert one.passed and one.files == (Path("run"),)
    starts = {picture.path.suffix: picture.path.read_bytes()[:5] for picture in one.pictures}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml"}
    row = read(Path("run"))
    assert (row.command, row.state, row.data) == ("corrupt", "finished", "npz:toy.npz")
    assert f"{100 * one.result['mean_accuracy']:.1f} %" in row.found
    table = one.tables[0].rows
    assert [line[0] for line in table[1:-1]] == list(KINDS)
    assert corrupt(PLAN, Context(out=Path("run"))).result == one.result

    beside = advkit.corrupt(
        model="worse.pt",
        data="npz:toy.npz",
        corruptions=KINDS,
        severities="1,5",
        baseline="run",
        progress=False,
    )
    measured = advkit.corrupt(
        model="worse.pt",
        data="npz:toy.npz",
        corruptions=KINDS,
        severities=(1, 5),
        baseline="clf.pt",
        progress=False,
    )
    assert beside.folder != measured.folder
    first, second = (each.result.relative for each in (beside, measured))
    assert first.model_hash == second.model_hash == one.result["model_hash"]
    assert first.errors == second.errors and first.mean_corruption_error > 1
    assert (measured.folder / "baseline" / "result.json").exists()
    number = read(measured.folder / "baseline").model
    assert number == "clf.pt"


@pytest.mark.usefixtures("here")
def test_models_are_compared_by_the_means_of_images():
    mild = ("brightness", "jpeg", "gaussian-noise")
    results = [
        advkit.corrupt(
            model=name,
            data="npz:toy.npz",
            corruptions=mild,
            severities=(1, 2),
            progress=False,
            out=name[:-3],
        ).result
        for name in ("clf.pt", "worse.pt")
    ]
    found = advkit.compare("clf", "worse")
    assert found.decisive == "corrupted" and found.measures == ("clean", "corrupted")
    (one,) = found.deciding
    scores = [np.array(result.scores) for result in results]
    wanted = ttest_1samp([*(scores[1] - scores[0]), -1, 1], 0)
    assert one.difference == pytest.approx((scores[1] - scores[0]).mean()) and one.difference < 0
    assert one.interval == pytest.approx(tuple(wanted.confidence_interval()))
    assert one.p_value == pytest.approx(wanted.pvalue)
    assert one.both + one.only_first == round(scores[0].sum() * 6) == found.models[0].correct["corrupted"]
    assert one.both + one.only_first + one.only_second + one.neither == 30 * 6 == found.n * found.answers
    shares = [found.share(place, "corrupted") for place in range(2)]
    assert [each.interval for each in shares] == [result.interval for result in results]
    assert [each.correct / each.n for each in shares] == pytest.approx([r.mean_accuracy for r in results])
    assert found.share(0, "clean").n == 30
    errors = {kind: [30 * 2 * (1 - each.accuracy_of(kind)) for each in results] for kind in mild}
    assert {one.name: one.broken for one in found.attacks} == {k: pytest.approx(v) for k, v in errors.items()}
    assert type(found).from_json(found.to_json()) == found

    outcome = advkit.functions.function("compare")(runs=("clf", "worse"), progress=False).outcome
    assert [row[0] for row in outcome.tables[1].rows] == ["clean", "corrupted"]
    assert f"{100 * results[1].mean_accuracy:.1f} %" in outcome.tables[0].rows[1][2]
    attacked = advkit.evaluate("clf.pt", "npz:toy.npz", advkit.Threat("linf", 0.01), attack="fgsm")
    for others in ((results[0], attacked), (attacked, results[0])):
        with pytest.raises(ConfigError) as refused:
            advkit.compare(*others)
        assert refused.value.code == "not-comparable"


@pytest.mark.usefixtures("here")
def test_threshold_and_dry_run():
    mean = corrupt(PLAN, Context(out=Path("run"))).result["mean_accuracy"]
    for least, passed in ((mean, True), (mean + 1e-6, False)):
        asked = PLAN.model_copy(update={"min_accuracy": least})
        assert corrupt(asked, Context(out=Path("run"))).passed is passed
    plan = corrupt(PLAN, Context(dry_run=True)).result
    assert (plan["n"], plan["forwards"]) == (30, 30 * 7)
    beside = corrupt(PLAN.model_copy(update={"baseline": "worse.pt"}), Context(dry_run=True)).result
    assert beside["forwards"] == 2 * 30 * 7
    known = corrupt(PLAN.model_copy(update={"baseline": "run"}), Context(dry_run=True)).result
    assert known["forwards"] == 30 * 7
    assert not Path("runs").exists()


def test_the_default_suits_all_images():
    assert len(COMMON) == len(set(COMMON)) == 15
    assert Corruptions(model="m").severities == (1, 2, 3, 4, 5)
    x = torch.zeros(1, 1, 8, 8)
    for name in COMMON:
        corrupted(x, torch.tensor([0]), name, 1)
    with pytest.raises(ValueError):
        Corruptions(model="m", severities=(6,))


@pytest.mark.usefixtures("here")
def test_colours_of_grey_images_are_refused():
    with pytest.raises(ConfigError):
        corrupt(PLAN.model_copy(update={"corruptions": ("saturate",)}), Context(dry_run=True))
