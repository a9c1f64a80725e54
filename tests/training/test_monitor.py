"""What is said of a training that goes wrong, and that nothing is said of a good one."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from advkit.report.figures.curves import CLASSIFIER, chart, course
from advkit.training.board import Board
from advkit.training.monitor import warnings


def rows(**columns):
    """A row for each check of a run."""
    return [
        {"step": 10 * (i + 1), **dict(zip(columns, values, strict=True))}
        for i, values in enumerate(zip(*columns.values(), strict=True))
    ]


GOOD = rows(
    loss=(2.2, 1.2, 0.8, 0.6, 0.5),
    accuracy=(0.2, 0.6, 0.7, 0.8, 0.8),
    robust=(0.0, 0.4, 0.6, 0.7, 0.69),
    train_robust=(0.0, 0.4, 0.6, 0.75, 0.78),
)
STUCK = rows(loss=(1.9, 2.31, 2.305, 2.303, 2.1), accuracy=(0.25, 0.11, 0.1, 0.11, 0.2))
CATASTROPHE = rows(
    loss=(2.0, 1.5, 1.2, 0.4),
    accuracy=(0.3, 0.5, 0.6, 0.9),
    robust=(0.2, 0.4, 0.5, 0.01),
    train_robust=(0.2, 0.4, 0.5, 0.02),
)
OVERFITTED = rows(
    loss=(2.0, 1.0, 0.8, 0.6, 0.4, 0.3, 0.2),
    accuracy=(0.3, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97),
    robust=(0.2, 0.5, 0.55, 0.52, 0.5, 0.46, 0.42),
    train_robust=(0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 0.94),
)


def test_nothing_is_said_of_a_good_run():
    for history in (GOOD, rows(loss=(0.5, 0.2, 0.1), accuracy=(0.8, 0.9, 1.0))):
        assert not any(warnings(history[: seen + 1], 10) for seen in range(len(history)))


@pytest.mark.parametrize(
    ("history", "kind", "step", "parts"),
    [
        (STUCK, "plateau", 40, ["2.31", "11%"]),
        (CATASTROPHE, "catastrophic overfitting", 40, ["90%", "2%", "50%", "30"]),
        (OVERFITTED, "robust overfitting", 70, ["52.3%", "30", "46.0%", "88.0%"]),
    ],
)
def test_signs(history, kind, step, parts):
    for seen in range(len(history)):
        if history[seen]["step"] != step:
            assert warnings(history[: seen + 1], 10) == {}
    ((found, sentence),) = warnings([row for row in history if row["step"] <= step], 10).items()
    assert found == kind
    assert all(part in sentence for part in parts)


GUESSING = {"accuracy": (0.1, 0.199, 0.1)}
LEARNT = {"loss": (1,) * 3, "accuracy": (0.3, 0.5, 0.5), "robust": (0.5,) * 3}
LATE = {"loss": (1,) * 6, "accuracy": (0.5,) * 6, "train_robust": (0.5, 0.5, 0.5, 0.6, 0.6, 0.6)}
FAR = "catastrophic overfitting"


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({"loss": (2, 9, 1.941), **GUESSING}, ["plateau"]),  # 3 % of the loss of three checks ago
        ({"loss": (2, 2, 1.939), **GUESSING}, []),
        ({"loss": (2, 2), "accuracy": (0.1, 0.1)}, []),  # too early
        ({"loss": (2, 2, 2), "accuracy": (0.1, 0.201, 0.1)}, []),  # more than a guess
        ({"loss": (9, 2, 2, 2), "accuracy": (0.5, 0.1, 0.1, 0.1)}, ["plateau"]),
        ({**LEARNT, "train_robust": (0.3, 0.6, 0.299)}, [FAR]),  # half of the best
        ({**LEARNT, "train_robust": (0.3, 0.6, 0.301)}, []),
        ({**LEARNT, "accuracy": (0.3, 0.6, 0.5), "train_robust": (0.3, 0.6, 0.2)}, []),  # all of it collapsed
        ({**LATE, "robust": (0.5, 0.5, 0.5, 0.4, 0.5, 0.479)}, ["robust overfitting"]),  # 4 % of means of 3
        ({**LATE, "robust": (0.5, 0.5, 0.5, 0.4, 0.5, 0.481)}, []),
        ({**LATE, "robust": (0.5, 0.5, 0.5, 0.4, 0.4, 0.4), "train_robust": (0.5,) * 6}, []),
        ({**LATE, "robust": (0.4, 0.4, 0.5, 0.5, 0.5, 0.5)}, []),
    ],
)
def test_what_is_just_a_sign_and_what_is_none(columns, kinds):
    assert list(warnings(rows(**columns), 10)) == kinds


@pytest.mark.parametrize(("classes", "most"), [(2, 0.75), (3, 2 / 3), (4, 0.5), (100, 0.02)])
def test_a_guess_is_one_among_the_classes(classes, most):
    for accuracy, kinds in ((most - 1e-6, ["plateau"]), (most, [])):
        assert list(warnings(rows(loss=(2, 2, 2), accuracy=(accuracy,) * 3), classes)) == kinds


def test_tensorboard_reads_numbers_and_pictures_and_nothing_is_written_without_a_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for folder in (tmp_path, None):
        with Board(folder, step=2) as board:
            board.row(3, {"loss": 0.5, "name": "text"})
            board.samples(3, torch.rand(4, 1, 8, 8), columns=2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    assert events.Tags()["scalars"] == ["loss"] and events.Images("samples")[0].width == 22


def test_curves_show_what_is_known_in_per_cent(tmp_path, drawn):
    rows = [{"step": 5 * at, "epoch": at / 2, "clean": at / 10, "accuracy": at / 5} for at in (1, 2, 3)]
    known = chart(rows, CLASSIFIER, "toy", kept=10)
    near = functools.partial(pytest.approx, abs=1e-3)
    assert drawn(known) == {
        CLASSIFIER["clean"]: [near((0, 0.1)), near((0.5, 0.2)), near((1, 0.3))],
        CLASSIFIER["accuracy"]: [near((0, 0.2)), near((0.5, 0.4)), near((1, 0.6))],
    }
    assert ">kept<" in known and ">kept<" not in chart(rows, CLASSIFIER, "toy", kept=11)
    assert chart([], CLASSIFIER, "toy") == "" == chart([{"step": 1, "other": 1}], CLASSIFIER, "toy")
    assert not list(course(tmp_path, CLASSIFIER, "no training"))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (picture,) = course(tmp_path, CLASSIFIER, "a training", kept=10)
    assert picture.svg.replace("curves during training", "toy") == known
    assert picture.path == tmp_path / "curves.svg" and picture.path.exists()


def test_losses_that_are_far_apart_are_drawn_by_their_logarithm(drawn):
    rows = [{"step": at, "g_loss": loss} for at, loss in ((1, 1.0), (2, 10.0), (3, 100.0))]
    (line,) = drawn(chart(rows, {"g_loss": "G"}, "")).values()
    assert [height for _, height in line] == pytest.approx([0, 0.5, 1], abs=1e-3)
    for last in (50.0, -1.0):
        rows[2]["g_loss"] = last
        (line,) = drawn(chart(rows, {"g_loss": "G"}, "")).values()
        low, high = min(0.0, last), max(10.0, last)
        heights = [(row["g_loss"] - low) / (high - low) for row in rows]
        assert [height for _, height in line] == pytest.approx(heights, abs=1e-3)
