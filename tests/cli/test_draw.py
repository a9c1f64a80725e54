from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from advkit.cli import draw
from advkit.core import bars
from advkit.core.progress import Share
from advkit.report.outcome import Outcome, Picture, Table


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _console(width: int = 80, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def _text(console: Console) -> str:
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.62049, "0.62"),
        (1234.56, "1,235"),
        (2e-4, "0.0002"),
        ("ok", "ok"),
        (-1234.5, "-1,234"),
        (50.26, "50.3"),
        (Share(0.62549), "62.5 %"),
        (Share(1), "100.0 %"),
    ],
)
def test_figures(value, shown):
    assert bars.figure(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (9.4, "9.4 s"),
        (9.5, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3605, "1:00:05"),
    ],
)
def test_durations(seconds, shown):
    assert bars.duration(seconds) == shown


def test_a_task_may_turn_out_longer():
    console, clock = _console(), Clock()
    with bars.Drawn(console, clock) as progress, progress.task("attacking", 100, unit="image") as task:
        clock.now += 30
        task.extend(100)
        task.advance(50)
    assert _text(console).splitlines()[0] == "attacking 50/200 images   1:30 left"


def test_units_are_counted_in_english():
    console = _console()
    with bars.Drawn(console, Clock()) as progress, progress.task("searching", 3, unit="pass") as task:
        task.advance(3)
    assert "searching: 3 passes" in _text(console)


def test_work_under_way_counts_for_the_time_left():
    console, clock = _console(), Clock()
    with bars.Drawn(console, clock) as progress, progress.task("attacking", 100, unit="image") as task:
        clock.now += 30
        task.underway(50)
        task.advance(20)
        clock.now += 30
        task.underway(55)
    assert _text(console).splitlines() == [
        "attacking 0/100 images, 50 %   30 s left",
        "attacking 20/100 images, 75 %   20 s left",
        "attacking: 20 images   1:00",
    ]


def test_lines_now_and_then_without_a_terminal():
    console, clock = _console(), Clock()
    with bars.Drawn(console, clock) as progress:
        progress.say("resuming at step 100")
        with progress.task("training", 1100, done=100) as task:
            for _ in range(10):
                clock.now += 10
                task.advance(100, **{"D loss": 0.62, "images/s": 1234.0})
    assert _text(console).splitlines() == [
        "resuming at step 100",
        "training 400/1,100 steps   1:10 left   D loss 0.62   images/s 1,234",
        "training 700/1,100 steps   40 s left   D loss 0.62   images/s 1,234",
        "training 1,000/1,100 steps   10 s left   D loss 0.62   images/s 1,234",
        "training: 1,100 steps   1:40   D loss 0.62   images/s 1,234",
    ]


def test_a_task_inside_another_leaves_no_line():
    console, clock = _console(), Clock()
    with (
        bars.Drawn(console, clock) as progress,
        progress.task("training", 2, unit="epoch") as outer,
    ):
        for _ in range(2):
            with progress.task("attacking", 5, unit="image") as inner:
                inner.advance(5)
            outer.advance()
    assert _text(console).splitlines() == ["training: 2 epochs   0.0 s"]


def test_a_task_that_fails_leaves_no_line():
    console = _console()
    with pytest.raises(RuntimeError), bars.Drawn(console) as progress, progress.task("training", 2):
        raise RuntimeError
    assert _text(console) == ""


@pytest.mark.parametrize("width", [80, 120])
def test_bars_fit_the_terminal(width):
    console = _console(width, terminal=True)
    progress = bars.Drawn(console)
    with progress.task("training the GAN", 12001) as task:
        task.advance(
            6000, **{"D loss": 0.62, "D accuracy": Share(0.625), "G loss": 1.06, "images/s": 12345.0}
        )
        shown = _console(width)
        shown.print(*progress.bars.get_renderables())
        lines = _text(shown).splitlines()
    assert "6,000/12,001 steps" in lines[0]
    assert lines[1].strip() == "D loss 0.62   D accuracy 62.5 %   G loss 1.06   images/s 12,345"
    assert all(len(line) <= width for line in lines)


ATTACKED = Outcome(
    "attack: clf.pt on digits",
    ("Of 359 images, 349 are right.",),
    (
        Table(
            "accuracy",
            ("attack", "accuracy", "95 % interval", "n", "broken", "forwards", "backwards", "time"),
            (
                ("clean", "97.2 %", "95.0 - 98.7", "359", "", "359", "0", "0.1 s"),
                ("pgd (40 steps, 5 starts)", "4.4 %", "2.6 - 7.1", "359", "329", "12,345", "12,000", "3.2 s"),
            ),
        ),
        Table("", ("check", "why"), (("gradients", "none of the images has a gradient that is zero " * 3),)),
    ),
    (Picture("Examples", Path("runs/00001-attack/examples.png")),),
    (
        Path("runs/00001-attack/examples.png"),
        Path("runs/00001-attack/result.json"),
        Path("runs/00001-attack"),
    ),
    ("advkit ls attacks",),
)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_an_outcome_keeps_every_word_and_fits(width):
    console = _console(width)
    draw.outcome(console, ATTACKED)
    text = _text(console)
    drawn = [line for line in text.splitlines() if "runs/" not in line]
    assert all(len(line.rstrip()) <= width for line in drawn)
    assert "…" not in text
    letters = "".join(text.split())
    for table in ATTACKED.tables:
        for cell in (cell for row in table.rows for cell in row):
            assert all(word in letters or width < 80 for word in cell.split())
    assert text.splitlines()[-1] == "runs/00001-attack"
    assert text.count("examples.png") == 1
    if width == 120:
        lines = [line.strip() for line in text.splitlines()]
        assert all(lines[lines.index("accuracy") :][:5])  # title, names, rule and two rows
        assert "pgd (40 steps, 5 starts)     4.4 %" in text


def test_markup_is_shown_as_it_is():
    console = _console()
    draw.outcome(console, Outcome("[bold]a[/]", ("[red]b",), (Table("", ("c",), (("[d]",),)),)))
    assert "[bold]a[/]" in _text(console) and "[red]b" in _text(console) and "[d]" in _text(console)
