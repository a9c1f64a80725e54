"""Every figure that an evaluation prints follows from its counts."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from advkit.commands import attack as command
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import DataError
from advkit.core.threat import Threat
from advkit.data.load import load_data
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.settings import Evaluation
from advkit.models.checkpoint import save_model
from advkit.report.evaluation import by_class

KINDS = ("misclassified", "broken", "robust", "certified")


def drawn(seed, n=None, classes=4):
    """(a result with whatever counts, the status of each image by its label)."""
    dice = random.Random(seed)
    n = n or dice.choice([1, 2, 7, 40, 1234])
    weights = dice.choice([(1, 2, 3, 0), (1, 2, 3, 2), (1, 1, 0, 0), (0, 0, 1, 1), (1, 2, 0, 3)])
    status = dice.choices(KINDS, weights, k=n)
    labels = [dice.randrange(classes) for _ in range(n)]
    count = Counter(status)
    clean, standing = n - count["misclassified"], count["robust"] + count["certified"]
    fallen, left, stages = count["broken"], clean, []
    for name in ("fgsm", "pgd"):
        broken = fallen if name == "pgd" else dice.randint(0, fallen)
        stages.append({
            "name": name, "attack": name, "parameters": {}, "attacked": left - count["certified"],
            "broken": broken, "correct_after": left - broken, "transferred": dice.random() < 0.3,
            "forwards": dice.randrange(5000), "backwards": dice.randrange(5000),
        })  # fmt: skip
        left, fallen = left - broken, fallen - broken
    doubts = [dice.random() < 0.2 for _ in range(dice.randint(1, 12))]
    checks = [
        {"name": f"check-{'abcdefghijkl'[at]}", "verdict": "doubt" if doubt else "ok", "detail": "seen",
         "remedy": "mend it: --attack square" if doubt else ""}
        for at, doubt in enumerate(doubts)
    ]  # fmt: skip
    values = {
        "schema": "advkit/evaluation", "version": 4, "status": dice.choice(["complete", "partial"]),
        "threat": {"norm": "linf", "eps": dice.choice([0.3, 0.03125])}, "model_hash": "m", "card": None,
        "data": {"name": "toy", "split": "test", "fingerprint": "f", "n": n}, "seed": 3,
        "precision": "float32", "eight_bit": dice.random() < 0.3, "n": n, "clean_correct": clean,
        "robust_correct": standing, "stages": stages, "checks": checks, "forwards": 1, "backwards": 2,
        "certified_correct": count["certified"] if weights[3] else None, "seconds": 1.0,
        "environment": {}, "notes": [], "clean_accuracy": clean / n, "robust_accuracy": standing / n,
        "clean_interval": [0, 1], "interval": [0, 1],
        "verdicts": [
            {"id": at, "label": label, "status": kind, "distance": 0.25 if kind == "broken" else None}
            for at, (label, kind) in enumerate(zip(labels, status, strict=True))
        ],
    }  # fmt: skip
    return EvaluationResult.from_json(json.dumps(values)), list(zip(labels, status, strict=True))


def facts(result):
    """What its line says after the accuracies."""
    return [result.threat.eps, *([8] if result.eight_bit else []), result.n]


def test_sentences_and_tables_print_what_the_counts_say(printed, share):
    seen = set()
    for seed in range(60):
        result, images = drawn(seed)
        n, count = len(images), Counter(kind for _, kind in images)
        clean, standing, proved = n - count["misclassified"], count["robust"] + count["certified"], None
        both = share(standing, n)
        if result.certified_correct is not None:
            proved = count["certified"]
            if proved != standing:
                both = [100 * proved / n, 100 * standing / n, 100 * (standing - proved) / n]
            assert ("exactly" in result.between) == (proved == standing)
        assert result.certified_accuracy == (None if proved is None else proved / n)
        printed(result.between, *both)
        line = [*share(clean, n), *both, *facts(result)]
        for text in (result.summary(), result.sentence):
            printed(text, *line)
        doubts = sum(check.verdict == "doubt" for check in result.checks)
        believed = [] if standing in (0, proved) else [len(result.checks)]
        told = ([doubts - 1] if doubts > 1 else []) if doubts else believed
        printed(result.trust, *told)
        assert result.trusted == (doubts == 0) == ("not" not in result.trust.split()[:3])
        assert ("checks" in result.trust) == (doubts > 2 or (not doubts and bool(believed)))
        assert ("certified" in result.trust) == (not doubts and standing == proved != 0)
        assert (": --attack square." in result.trust) == (doubts > 0)
        seen.add((doubts > 2, standing == 0, standing == proved, proved is None))
        printed(result, *line, *told)
        rows = [
            [s.broken, s.attacked, *share(clean - sum(e.broken for e in result.stages[: at + 1]), n)]
            for at, s in enumerate(result.stages)
        ]
        noted = result.model_copy(update={"notes": ("<b>pixels",)})
        assert "<b>pixels" in repr(noted) and str(noted).index("<b>") < str(noted).index("clean accuracy")
        assert "<b>" not in noted._repr_html_()
        page = re.sub(r"<[^>]*>", " ", result._repr_html_())
        printed(page, *line, *told, *[figure for row in rows for figure in row])
        again = EvaluationResult.from_json(result.to_json())
        assert again == result and json.loads(result.to_json()) == result.as_values()
        # Class by class.
        table = by_class(result, ("aa", "bb", "cc"))
        for row, label in zip(table.rows, sorted({label for label, _ in images}), strict=True):
            mine = Counter(kind for at, kind in images if at == label)
            n, good = mine.total(), mine["robust"] + mine["certified"]
            assert row[0] == ("aa", "bb", "cc", "3")[label]
            printed(" ; ".join(row[1:]), n, *share(n - mine["misclassified"], n), *share(good, n))
    assert len(seen) > 8


@pytest.mark.parametrize("classes", [9, 10, 11, 25])
def test_of_many_classes_the_worst_ten_are_told(printed, classes):
    result, images = drawn(classes, 400, classes)
    rate = {}
    for label in range(classes):
        mine = [kind in ("robust", "certified") for at, kind in images if at == label]
        rate[label] = sum(mine) / len(mine)
    table = by_class(result, ())
    worst = sorted(rate, key=rate.get)[:10] if classes > 10 else sorted(rate)
    assert [int(row[0]) for row in table.rows] == worst
    printed(table.title, *([10, classes] if classes > 10 else []))


@pytest.mark.parametrize("seed", range(8))
def test_the_command_prints_what_the_counts_say(judged, printed, share, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    result, images = drawn(seed, n=20 if seed % 2 else 1200)
    save_model(judged[0], "clf.pt")
    x = np.zeros((len(images), 1, 8, 8), np.uint8)
    np.savez("toy.npz", x=x, y=np.array([*(label for label, _ in images[:-1]), 3]))

    def evaluate(*args, run, **more):
        np.zeros((result.n, 64), np.float32).tofile(run.path / "adversarial.bin")
        return result

    monkeypatch.setattr(command, "attacked", evaluate)
    n, standing = result.n, result.robust_correct
    bar = [None, standing / n, min(1.0, standing / n + 1e-3)][seed % 3]
    given = {"model": "clf.pt", "data": "npz:toy.npz", "norm": "linf", "eps": 0.3, "min_robust": bar}
    plan = Evaluation(**given)
    outcome = command.run(plan, Context(out=Path("run")))
    assert outcome.result == result.as_values()
    assert outcome.passed == (bar is None or (standing / n >= bar and result.trusted))
    assert outcome.sentences[:2] == (result.sentence, result.trust)
    rest = list(outcome.sentences[2:])
    if result.status == "partial":
        printed(rest.pop(0), n)
    assert len(rest) == (bar is not None)
    for sentence in rest:
        printed(sentence.partition(" Remove")[0].partition(", but")[0], standing / n, bar)
    assert outcome.warning == ("" if result.trusted else result.trust)
    tables = list(outcome.tables)
    stages = tables.pop(0)
    printed(stages.title, result.threat.eps, n)
    printed(" ; ".join(stages.rows[0]), *share(result.clean_correct, n), n)
    for stage, row in zip(result.stages, stages.rows[1:], strict=True):
        assert ("surrogate" in row[0]) == stage.transferred
        passes = stage.forwards + stage.backwards
        printed(" ; ".join(row), stage.attacked, stage.broken, *share(stage.correct_after, n), passes)
    if result.certified_correct is not None:
        proved = result.certified_correct
        for row, k in zip(tables.pop(0).rows, (proved, standing, standing - proved), strict=True):
            printed(" ; ".join(row), k, *share(k, n))
    for verdict in ("doubt", "ok"):
        if told := [(c.name, c.detail, c.remedy) for c in result.checks if c.verdict == verdict]:
            assert [row[:2] for row in tables.pop(0).rows] == [one[:2] for one in told]
    assert tables.pop(0) == by_class(result, load_data("npz:toy.npz").class_names)
    cost = {row[0]: row[1] for row in tables.pop().rows}
    assert not tables
    assert [cost[f"{way} passes"] for way in ("forward", "backward")] == [
        f"{count:,}" for count in (result.forwards, result.backwards)
    ]
    charts, examples = ([p for p in outcome.pictures if bool(p.svg) == drawn] for drawn in (True, False))
    assert len(charts) >= 2 and len(examples) == any(kind == "broken" for _, kind in images)
    if all(check.verdict == "ok" for check in result.checks):
        printed(outcome.next[1], result.threat.eps / 2)
        same = [line.split("--eps ")[1].split()[0] for line in outcome.next[::2]]
        assert [Threat("linf", eps).eps for eps in same] == [pytest.approx(result.threat.eps, rel=1e-11)] * 2


@pytest.mark.parametrize(
    ("attack", "parameters", "rows"),
    [("pgd", {"steps": 7, "restarts": 3}, 3), ("apgd-t", {"steps": 5, "targets": 9}, 3), ("fgsm", {}, 1)],
)
def test_a_dry_run_prints_what_it_would_cost_at_most(
    judged, printed, tmp_path, monkeypatch, attack, parameters, rows
):
    monkeypatch.chdir(tmp_path)
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    plan = Evaluation(
        model="clf.pt", data="npz:toy.npz", norm="linf", eps=0.03, attack=(attack,), n=13,
        parameters={attack: parameters} if parameters else {},
    )  # fmt: skip
    outcome = command.run(plan, Context(dry_run=True))
    steps = parameters.get("steps", 1)
    (row,) = outcome.tables[0].rows
    assert row[:2] == (attack, attack)
    printed(" ; ".join(row[2:5]), steps, rows, (steps + 1) * rows * 13)
    assert outcome.result["n"] == 13 and outcome.result["attacks"] == [attack]


def test_what_is_no_result_is_refused():
    result, _ = drawn(0)
    for text in (json.dumps({**result.as_values(), "version": 99}), "{}", "{", "[]"):
        with pytest.raises(DataError):
            EvaluationResult.from_json(text)


@pytest.mark.parametrize("version", [4, 5])
def test_flags_are_read_or_else_taken_from_the_remedy(version):
    values = drawn(0)[0].as_values()
    for remedy, flags in (("a: --b c", "--b c"), ("a", ""), ("a: b", ""), ("a: --b", "--other")):
        check = {"name": "c", "verdict": "doubt", "detail": "d", "remedy": remedy}
        if version == 5 or flags == "--other":
            check["flags"] = flags
        text = json.dumps({**values, "version": version, "checks": [check]})
        assert EvaluationResult.from_json(text).checks[0].flags == flags


@pytest.mark.parametrize("version", [1, 2, 3])
def test_results_of_earlier_versions_are_read(version):
    result, _ = drawn(5)
    values = {**result.as_values(), "version": version}
    for name in ("eight_bit", "certified_correct", "certified_interval", "surrogate_hash"):
        del values[name]
    for part in values["stages"]:
        del part["name"], part["transferred"]
    for check in values["checks"]:
        del check["remedy"]
    for verdict in values["verdicts"]:
        verdict["place"] = 7
    again = EvaluationResult.from_json(json.dumps(values))
    assert [check.remedy for check in again.checks] == [""] * len(result.checks)
    assert [stage.name for stage in again.stages] == [stage.attack for stage in result.stages]
    assert again.verdicts == result.verdicts and again.trust and not again.eight_bit
    assert not any(stage.transferred for stage in again.stages)
    for verdict in again.verdicts:
        assert verdict.iteration == verdict.variant == verdict.forwards == verdict.backwards == 0


@pytest.mark.parametrize("name", ["seconds", "environment", "card", "notes"])
def test_what_every_version_wrote_is_not_read_as_empty(name, tmp_path):
    """A file without a seal may be of an older version, or one whose seal was cut off with the rest."""
    values = drawn(1)[0].as_values()
    values[name] = {"seconds": 2.5, "environment": {"torch": "2.0"}, "notes": ["assumed"]}.get(name)
    for given in (values, files.sealed(values)):
        EvaluationResult.from_json(json.dumps(given))
        del given[name]
        with pytest.raises(DataError):
            EvaluationResult.from_json(json.dumps(given))
