"""What the charts of an evaluation draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from advkit.core.stats import accuracy, clopper_pearson
from advkit.evaluation.result import COMPLETE, EvaluationResult
from advkit.report import evaluation as report
from advkit.report.charts import Bar
from advkit.report.figures import evaluation as figures

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "finished"


@pytest.fixture(scope="module")
def golden():
    return EvaluationResult.load(GOLDEN / "attack")


@pytest.fixture
def rows(monkeypatch):
    """The bars that were drawn."""
    made = []
    monkeypatch.setattr(figures, "bars", lambda title, bars, **how: made.extend(bars) or "")
    return made


def test_the_first_bars_are_clean_and_robust_accuracy_with_bounds(golden):
    n, clean, robust = golden.n, golden.clean_correct, golden.robust_correct
    assert golden.certified_correct == robust
    assert figures.first_bars(golden)[1] == Bar(
        "robust accuracy, exactly",
        ((robust / n, "green"), ((clean - robust) / n, "red")),
        clopper_pearson(robust, n),
        accuracy(robust, n),
    )
    first, second = figures.first_bars(golden.model_copy(update={"certified_correct": None}))
    assert first == Bar.of(f"clean accuracy, n = {n:,}", clean, n, "grey")
    assert second.parts == ((robust / n, "blue"), ((clean - robust) / n, "red"))
    assert second.interval == clopper_pearson(robust, n)
    certified = robust - 2
    _, both = figures.first_bars(golden.model_copy(update={"certified_correct": certified}))
    assert both.parts == ((certified / n, "green"), (2 / n, "blue"), ((clean - robust) / n, "red"))
    assert both.interval == (clopper_pearson(certified, n).low, clopper_pearson(robust, n).high)
    low, high = (100 * end for end in both.interval)
    assert f"{100 * certified / n:.1f} to {100 * robust / n:.1f} % [{low:.1f}, {high:.1f}]" == both.text


def test_a_waterfall_has_a_row_for_each_stage_that_attacked(golden, rows):
    stage = golden.stages[0]
    idle = stage.model_copy(update={"attacked": 0, "broken": 0, "name": "idle"})
    hopeless = idle.model_copy(update={"left": 3, "name": "hopeless"})
    others = golden.verdicts[2:]
    verified = [one.model_copy(update={"attack": COMPLETE}) for one in golden.verdicts[:2]]
    result = golden.model_copy(update={"stages": (stage, idle, hopeless), "verdicts": (*verified, *others)})
    figures.waterfall(result)
    n, clean = golden.n, golden.clean_correct
    assert [row.name for row in rows] == ["none (clean)", COMPLETE, stage.name]
    assert rows[1].parts == (((clean - 2) / n, "blue"), (2 / n, "red"))
    after = stage.correct_after
    assert rows[2].parts == ((after / n, "blue"), (stage.broken / n, "red"))
    assert rows[2].interval == clopper_pearson(after, n)
    said = report._idle(result)
    assert said.index("idle") < said.index("hopeless") and said.count("1 stage ") == 2
    assert report._idle(result.model_copy(update={"stages": (idle, idle)})).startswith("2 stages ")
    assert report._idle(golden.model_copy(update={"stages": (stage,)})) == ""


def test_class_bars_have_what_the_table_has(golden, rows):
    report.class_bars(golden, ())
    table = report.by_class(golden, ())
    assert [(row.name, row.text) for row in rows] == [
        (f"{name} (n = {n})", robust) for name, n, _, robust in table.rows
    ]
    for row, (_, _, clean, _) in zip(rows, table.rows, strict=True):
        drawn = 100 * sum(length for length, _ in row.parts)
        assert drawn == pytest.approx(float(clean.split()[0]), abs=0.051)


def test_margins_are_binned_from_the_lowest_to_none(golden, monkeypatch):
    made = []
    monkeypatch.setattr(figures, "histogram", lambda *args, **how: made.append(args) or "")
    pairs = zip(golden.verdicts, (-2.0, -0.5, None), strict=False)
    verdicts = tuple(one.model_copy(update={"margin": margin}) for one, margin in pairs)
    result = golden.model_copy(update={"verdicts": verdicts})
    figures.margins(result)
    ((_, edges, groups, axis),) = made
    assert list(groups.values()) == [[-2.0, -0.5]] and (axis.low, axis.high) == (-2.0, 0.0)
    assert edges[0] == -2.0 and edges[-1] == 0.0 and edges == sorted(edges) and len(edges) == figures.BINS + 1
