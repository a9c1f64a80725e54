"""A page about many runs: it shows what the runs say, and sorts and filters it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from advkit.commands.board import Config, run
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, OutputError
from advkit.core.run_list import below, read
from advkit.core.stats import clopper_pearson
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.result import EvaluationResult
from advkit.report import board as report
from advkit.report import charts, html
from advkit.report.measured import Figure, Measured
from advkit.verify.smoothing.result import SmoothingResult

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "finished"
KINDS = ("attack", "certify", "smooth", "curve")
OUT = Path("sub/board.html")


def measured(name):
    (found,) = Measured.of(read(GOLDEN / name))
    return found


def figure(name, correct, n, under=""):
    return Figure(name, correct / n, clopper_pearson(correct, n), under)


def test_figures_are_those_of_the_results():
    attack = EvaluationResult.load(GOLDEN / "attack")
    under, n = f"{attack.threat.norm} eps {attack.threat.eps:g}", attack.n
    found = measured("attack")
    assert found.figures == (
        figure("clean", attack.clean_correct, n),
        figure("robust", attack.robust_correct, n, under),
        figure("certified", attack.certified_correct, n, under),
    )
    assert (found.trusted, found.n, found.model_hash) == (attack.trusted, n, attack.model_hash)
    assert [one.name for one in measured("certify").figures] == ["clean", "certified"]
    smoothed, one = SmoothingResult.load(GOLDEN / "smooth"), measured("smooth")
    under, n = f"l2 eps {smoothed.sigma:g}, smoothed", smoothed.n
    assert one.figures == (
        figure("clean", smoothed.bare_correct, n),
        figure("smoothed", smoothed.right, n),
        figure("certified", sum(radius > smoothed.sigma for radius in smoothed.radii), n, under),
    )
    curve, one = SecurityCurve.load(GOLDEN / "curve"), measured("curve")
    assert one.main["robust"].value == curve.at(curve.class_eps).robust_correct / curve.n
    assert len(one.figures) == 1 + len(curve.asked([curve.class_eps]).points)
    assert one.curve[0] == (0.0, curve.clean_accuracy)
    assert all(share == curve.at(eps).robust_accuracy for eps, share in one.curve)


def test_what_checks_doubt_is_said(tmp_path):
    shutil.copytree(GOLDEN / "attack", tmp_path / "attack")
    path = tmp_path / "attack" / "result.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["checks"][0]["verdict"] = "doubt"
    path.write_text(json.dumps(values), encoding="utf-8")
    (one,) = Measured.of(read(tmp_path / "attack"))
    assert one.trusted is False and values["checks"][0]["detail"] in one.said[0]


@pytest.mark.parametrize("name", ["gan-train", "nothing"])
def test_what_measured_nothing_is_refused(name):
    with pytest.raises(DataError):
        Measured.of(read(GOLDEN / name))


@pytest.fixture
def runs(tmp_path):
    """Runs of each kind, one inside another, one that measured nothing, and damaged ones."""
    top = tmp_path / "runs"
    for name in (*KINDS, "gan-train"):
        shutil.copytree(GOLDEN / name, top / name)
    (top / "attack" / "report.html").write_text("", encoding="utf-8")
    shutil.copytree(GOLDEN / "attack", top / "00007-attack-again")
    shutil.copytree(GOLDEN / "attack", top / "gan-train" / "1-attack")
    shutil.copytree(GOLDEN / "curve", top / "00008-curve-cut")
    (top / "00008-curve-cut" / "result.json").write_text("{", encoding="utf-8")
    (top / "00009-empty").mkdir()
    shutil.copytree(GOLDEN / "attack", top / "half")
    (top / "half" / "result.json").unlink()
    return top


def test_a_board_has_a_row_for_each_run_and_names_the_damaged(runs):
    outcome = run(Config(folder=(str(runs),)), Context(out=OUT))
    names = [Path(path).name for path in outcome.result["runs"]]
    assert sorted(names) == sorted([*KINDS, "00007-attack-again", "1-attack"])
    for damaged in ("00008-curve-cut", "00009-empty"):
        assert sum(damaged in said for said in outcome.sentences) == 1
    assert len(outcome.sentences) == 3 and outcome.sentences[-1].startswith("2 other")
    page = OUT.read_text(encoding="utf-8")
    assert (
        page.count("<td>attack<") == 3 and page.count("<td>7<") == page.count("<td>gan-train/1-attack<") == 1
    )
    assert re.findall(r'<a href="([^"]*)">', page) == ["../runs/attack/report.html"]
    assert page.count("<script>") == 1 and not re.search(r"https?:|src=", page)
    with pytest.raises(OutputError):
        run(Config(folder=(str(runs),)), Context(out=OUT))
    assert run(Config(folder=(str(runs),)), Context(dry_run=True)).result == {"runs": 10}


@pytest.mark.parametrize("state", ["unfinished", "damaged"])
def test_what_is_wrong_with_a_damaged_run_is_said(state):
    with pytest.raises(DataError) as fault:
        Measured.of(replace(measured("attack").row, state=state, found="cut off"))
    assert ("cut off" in str(fault.value)) == (state == "damaged")


def test_of_many_damaged_folders_the_first_are_named(runs):
    for number in range(10, 31):
        (runs / f"{number:05d}-empty").mkdir()
    said = run(Config(folder=(str(runs),)), Context(out=OUT)).sentences
    named = [line for line in said if "-empty" in line or "-cut" in line]
    assert len(named) == 20 and any(line.startswith("3 ") for line in said)


def test_a_board_of_nothing_is_refused(tmp_path):
    for folder in ("missing", str(tmp_path)):
        with pytest.raises(ConfigError) as fault:
            run(Config(folder=(folder,)), Context())
        assert fault.value.code == "run-not-found"


def of(at, *, trusted=True, under="linf eps 0.1", **facts):
    """One run as a board sees it; ``at`` tells them apart."""
    base = measured("attack")
    figures = (figure("clean", 100 - at, 100), figure("robust", at, 100, under))
    row = replace(base.row, number=at, path=Path(f"runs/{at:05d}-attack"), started=f"2026-01-01T{at:05d}")
    return replace(base, row=row, figures=figures, trusted=trusted, under=under, **facts)


def test_the_newest_is_first_and_the_marks_of_a_run_know_its_row(drawn):
    some = [of(at, trusted=at != 3, under=f"linf eps {at % 2}") for at in range(1, 5)]
    some.append(of(6, curve=((0.0, 0.94), (0.2, 0.06))))
    page = report.board(some, (), OUT)
    (table,) = page.tables
    assert [row[0] for row in table.rows] == ["6", "4", "3", "2", "1"]
    columns = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    assert columns["robust, at most"][1].replace("\u00a0", " ") == figure("robust", 4, 100).text
    scatter, curves = (picture.svg for picture in page.pictures)
    points = dict(re.findall(r'data-row="(\d)"><title>(\d)', scatter))
    assert points == {str(at): row[0] for at, row in enumerate(table.rows)}
    hollow = re.findall(r'<circle class="l-\w+ hollow"[^>]*data-row="(\d)"', scatter)
    assert hollow == ["2"]
    colours = Counter(re.findall(r'<circle class="(?:l-)?(\w+)', scatter))
    assert sorted(colours.values()) == [1, 2, 2]
    assert re.findall(r'<path [^>]*data-row="(\d)"', curves) == ["0"]
    (line,) = drawn(curves).values()
    assert line == [pytest.approx(point, abs=0.003) for point in ((0, 0.94), (1, 0.06))]
    assert len(report.board(some[:1], (), OUT).pictures) == 0


@pytest.mark.parametrize(("correct", "low"), [((0, 8), 0.9), ((5, 31), 0.6)])
def test_points_are_where_their_accuracies_are(correct, low):
    (scatter,) = report.board([of(at) for at in correct], (), OUT).pictures
    width = charts.WIDTH - charts.RIGHT - charts.LEFT
    places = {charts.LEFT + width * (1 - at / 100 - low) / (1 - low) for at in correct}
    found = {float(x) for x in re.findall(r'cx="([^"]*)"', scatter.svg)}
    assert sorted(found) == pytest.approx(sorted(places), abs=0.06)
    heights = [float(y) for y in re.findall(r'cy="([^"]*)"', scatter.svg)]
    apart = abs(heights[0] - heights[1])
    assert apart == pytest.approx(charts.HEIGHT * abs(correct[0] - correct[1]) / 100, abs=0.11)
    ticks = [low + (1 - low) * quarter / 4 for quarter in range(5)]
    assert all(f">{100 * tick:g} %<" in scatter.svg for tick in ticks)


def test_the_norm_with_most_curves_is_first():
    names = ["l2 eps 1", "linf eps 1", "linf eps 2"]
    some = [of(at, under=under, curve=((0.0, 1.0), (2.0, 0.0))) for at, under in enumerate(names)]
    titles = [picture.title for picture in report.board(some, (), OUT).pictures[1:]]
    assert ["linf" in title for title in titles] == [True, False]


def test_a_chart_has_as_many_curves_as_look_different_and_colours_as_there_are():
    under = [f"linf eps {at}" for at in range(7)]
    some = [of(at, under=under[at % 7], curve=((0.0, 1.0), (1.0, 0.0))) for at in range(30)]
    scatter, curves = (picture.svg for picture in report.board(some, (), OUT).pictures)
    styles = re.findall(r'<path class="(l-\w+) thick"(?: stroke-dasharray="([^"]*)")? data-row', curves)
    assert len(styles) == len(set(styles)) == report.DRAWN == 24
    captions = [report.board(some[:n], (), OUT).pictures[1].caption for n in (24, 25)]
    assert ["newest" in caption for caption in captions] == [False, True]
    assert scatter.count("<circle") == 30 and "others" in scatter
    assert len(set(re.findall(r'<circle class="(\w+)"', scatter))) == 6


def test_a_page_of_a_thousand_runs_is_small():
    some = [
        of(at % 90, under=f"linf eps {at % 9}", curve=tuple((eps / 20, 1 - eps / 20) for eps in range(20)))
        for at in range(1000)
    ]
    page = report.board(some, (), OUT)
    table = replace(page.tables[0], links=("runs/00001-attack-digits/report.html",) * 1000)
    text = html.render(replace(page, tables=(table,)), title="", command="", environment={})
    assert len(text.encode()) <= 400_000


SHOWN = (
    "Array.from(document.querySelectorAll('tbody tr')).filter((row) => !row.hidden).map((row) => row.cells"
)
MARKS = "Array.from(document.querySelectorAll('circle')).filter((mark) => mark.checkVisibility()).length"


@pytest.mark.skipif("ADVKIT_CHROMIUM" not in os.environ, reason="ADVKIT_CHROMIUM names no Chromium")
def test_a_browser_sorts_and_filters(tmp_path):
    some = [of(at, under=f"linf eps {at % 2}", trusted=None if at == 9 else at < 5) for at in (5, 9, 10, 1)]
    page = report.board(some, (), OUT)
    table = page.tables[0]
    path = tmp_path / "board.html"
    html.write(path, page, title="runs", command="advkit board " + "long" * 99, environment={})
    from tests.report.browser import chromium

    with chromium(os.environ["ADVKIT_CHROMIUM"]) as browser:

        def shown(column):
            return browser.value(f"{SHOWN}[{table.columns.index(column)}].textContent)")

        def click(column):
            browser.value(f"document.querySelectorAll('th button')[{table.columns.index(column)}].click()")

        def choose(column, text):
            at = table.filters.index(column)
            browser.value(
                f"(() => {{ const select = document.querySelectorAll('select')[{at}]; "
                f"select.value = '{text}'; select.dispatchEvent(new Event('change')); }})()"
            )

        for width in (1280, 390):
            browser.show(path, width)
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert shown("run") == ["10", "9", "5", "1"]
            click("run")
            assert shown("run") == ["1", "5", "9", "10"]  # by size
            click("run")
            assert shown("run") == ["10", "9", "5", "1"]
            click("checks")
            assert shown("checks") == ["doubted", "doubted", "trusted", ""]
            click("checks")
            assert shown("checks") == ["trusted", "doubted", "doubted", ""]  # what is empty stays last
            click("threat")
            assert shown("run")[0] == "10"
            assert browser.value("document.querySelectorAll('[aria-sort]').length") == 1
            choose("threat", "linf eps 1")
            assert sorted(shown("run")) == ["1", "5", "9"] and browser.value(MARKS) == 3
            assert browser.value("document.querySelector('output').textContent").startswith("3 of 4")
            choose("checks", "trusted")
            assert shown("run") == ["1"] and browser.value(MARKS) == 1
            choose("threat", "")
            choose("checks", "")
            assert len(shown("run")) == browser.value(MARKS) == 4


def test_run_folders_are_found_at_any_depth(runs):
    assert below(runs / "attack") == [runs / "attack"]
    assert {path.name for path in below(runs)} >= {"1-attack", "00009-empty", "half"}
