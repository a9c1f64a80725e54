"""The loop of all trainings: rows, states, looks, speed, warnings, early end, divergence and resume."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, DivergedError
from advkit.core.progress import Progress, Task
from advkit.core.runs import RunFolder
from advkit.training import loop
from advkit.training.loop import repeat
from advkit.training.training import Training, evenly, multiples


class Counting(Training):
    """The loss of a step is its number; every step, and every measurement, takes its time."""

    figures, shown, remedy = ("loss", "even"), {"loss": "the loss", "measured": "measured"}, "try less"
    step, batch_size, device, bad, patience = 0, 8, torch.device("cpu"), None, 99
    now, seconds = 0.0, 2.0

    def __init__(self, steps=10, rows=None, saves=None):
        self.steps = steps
        self.rows = {4, 7, 10} if rows is None else rows
        self.saves = self.rows if saves is None else saves
        self.total, self.events = torch.zeros(()), []

    def update(self):
        Counting.now += self.seconds
        self.step += 1
        self.total += self.step
        loss = float(self.step) if self.step != self.bad else float("nan")
        return torch.tensor([loss, (self.step + 1) % 2])

    @contextmanager
    def opened(self, folder):
        self.events.append((self.step, folder))
        yield
        self.events.append("closed")

    def evaluate(self, row, rate):
        Counting.now += 10
        row["measured"] = rate + float(self.total)

    def warnings(self, rows):
        return {"late": "it is late", f"row {rows[-1]['step']}": "a row"} if rows[-1]["step"] > 4 else {}

    def end(self, rows):
        return "too many rows" if len(rows) >= self.patience else ""

    def state(self):
        return {"step": self.step, "total": self.total}

    def restore(self, state):
        self.step = state["step"]
        self.total.copy_(state["total"])


class Heard(Progress, Task):
    """Raises KeyboardInterrupt when told of progress for the ``n``-th time."""

    def __init__(self, n=0):
        self.left, self.began, self.told, self.said = n, None, [], []

    def task(self, name, total, *, done=0, unit="step"):
        self.began = (name, total, done, unit)
        return self

    def advance(self, n=1, **facts):
        self.told.append((n, facts))
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def say(self, message):
        self.said.append(message)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(Counting, "now", 0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: Counting.now)


@pytest.fixture
def saved(monkeypatch):
    """The steps of the states that are written."""
    steps, save = [], RunFolder.save_state
    monkeypatch.setattr(
        RunFolder, "save_state", lambda run, state: steps.append(state["step"]) or save(run, state)
    )
    return steps


def opened(path="run"):
    return RunFolder.open("test", "toy", StrictModel(), Path(path))


@pytest.mark.parametrize(
    ("seconds", "saves", "looks"), [(0.4, [4, 10], [3, 4, 7, 10]), (25, [3, 4, 7, 10], range(1, 11))]
)
def test_rows_looks_states_and_speed(seconds, saves, looks, saved, monkeypatch):
    """Looks a second apart, states a minute apart and where they are due; what a row takes is no training."""
    monkeypatch.setattr(Counting, "seconds", seconds)
    training, heard = Counting(saves={4, 10}), Heard()
    with opened() as run:
        course = repeat(training, run=run, progress=heard, name="counting")
        assert run.history() == course.history and training.events == [(0, run), "closed"]
    assert saved == saves
    rate = pytest.approx(8 / seconds)
    rows = [(row["step"], row["loss"], row["even"]) for row in course.history]
    assert rows == [(4, 2.5, 0.5), (7, 6.0, pytest.approx(1 / 3)), (10, 9.0, pytest.approx(2 / 3))]
    assert [row["measured"] for row in course.history] == pytest.approx(
        [8 / seconds + n * (n + 1) / 2 for n in (4, 7, 10)]
    )
    assert heard.began == ("counting", 10, 0, "update")
    assert list(itertools.accumulate(n for n, _ in heard.told)) == list(looks)
    assert all(facts["images/s"] == rate for _, facts in heard.told)
    assert heard.told[0][1]["the loss"] == (1 + looks[0]) / 2 and "measured" not in heard.told[0][1]
    assert "measured" in heard.told[-1][1] and "even" not in heard.told[-1][1]
    assert (course.images_per_second, course.resumed_at) == (rate, 0)


def test_cadences():
    assert multiples(4, 10) == {4, 8, 10} and multiples(5, 10) == {5, 10} and multiples(20, 10) == {10}
    assert evenly(4, 10) == {2, 5, 8, 10} and evenly(1, 10) == {10} and evenly(30, 10) == {*range(1, 11)}


def test_a_warning_is_said_once_of_each_kind():
    heard = Heard()
    course = repeat(Counting(), progress=heard)
    assert course.warnings == heard.said == ["update 7: it is late", "update 7: a row", "update 10: a row"]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(monkeypatch):
    monkeypatch.setattr(loop, "LOOK_EVERY", 0.0)
    with opened("whole") as run:
        whole = repeat(Counting(), run=run)
    for every, begun in ((0.0, 7), (60.0, 4), (1e9, 4)):  # the state between two rows, too
        monkeypatch.setattr(loop, "SAVE_EVERY", every)
        monkeypatch.setattr(Counting, "now", 0.0)
        path = f"cut-{begun}-{every:g}"
        with opened(path) as run, pytest.raises(KeyboardInterrupt):
            repeat(Counting(rows={4, 10}), run=run, progress=Heard(8))
        training, heard = Counting(rows={4, 10}), Heard()
        with opened(path) as run:
            repeat(training, run=run, progress=heard)
            rows = run.history()
        assert heard.began[2] in range(begun, 8) and training.total == 55
        assert [(row["step"], row["loss"]) for row in rows] == [(4, 2.5), (10, 7.5)]
    with opened("whole") as run:  # nothing is left to do
        again = repeat(Counting(), run=run)
    assert (again.history, again.warnings) == (whole.history, whole.warnings)
    assert (again.images_per_second, again.resumed_at) == (0.0, 10)


def test_a_training_may_end_early_and_stays_where_it_ended(monkeypatch):
    monkeypatch.setattr(Counting, "patience", 2)
    for _ in range(2):
        heard, training = Heard(), Counting()
        with opened() as run:
            course = repeat(training, run=run, progress=heard)
        assert training.step == 7 and [row["step"] for row in course.history] == [4, 7]
        assert "7 of 10" in heard.said[-1] and "too many rows" in heard.said[-1]


@pytest.mark.parametrize("bad", [6, 10])
def test_divergence_is_an_error_and_the_last_state_stays(bad, monkeypatch):
    monkeypatch.setattr(Counting, "bad", bad)
    with opened() as run, pytest.raises(DivergedError, match=f"update {bad} of 10: loss is nan; try less"):
        repeat(Counting(), run=run)
    state = torch.load("run/state.pt", weights_only=True)
    assert state["step"] == (4 if bad == 6 else 7) and state["sums"].isfinite().all()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == ([4] if bad == 6 else [4, 7])


def test_a_state_of_another_version_is_refused_and_left():
    with opened() as run:
        run.save_state({"step": 3, "model": {}})
        run.metrics(4, loss=0.5)
    before = Path("run/metrics.jsonl").read_bytes()
    with opened() as run, pytest.raises(ConfigError) as refused:
        repeat(Counting(), run=run)
    assert refused.value.code == "run-differs"
    assert Path("run/metrics.jsonl").read_bytes() == before and Path("run/state.pt").exists()
