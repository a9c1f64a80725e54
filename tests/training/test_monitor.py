"""What is said of a training that goes wrong, and that nothing is said of a good one."""

from __future__ import annotations

import pytest
import torch

from advkit.report.figures.curves import write_curves
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
        assert not any(warnings(history[: seen + 1]) for seen in range(len(history)))


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
            assert warnings(history[: seen + 1]) == {}
    ((found, sentence),) = warnings([row for row in history if row["step"] <= step]).items()
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
    assert list(warnings(rows(**columns))) == kinds


def test_tensorboard_reads_numbers_and_pictures_and_nothing_is_written_without_a_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for folder in (tmp_path, None):
        with Board(folder, step=2) as board:
            board.row(3, {"loss": 0.5, "name": "text"})
            board.samples(3, torch.rand(4, 1, 8, 8), columns=2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    assert events.Tags()["scalars"] == ["loss"] and events.Images("samples")[0].width == 22


def test_curves_show_percentages_of_what_is_known(tmp_path, plotted):
    history = [{"epoch": at / 2, "clean": at / 10, "accuracy": at / 5} for at in (1, 2, 3)]
    write_curves(tmp_path / "a.png", history, title="toy", best=1.0)
    (axis,) = plotted[0].axes
    assert [list(line.get_ydata()) for line in axis.lines[:2]] == [pytest.approx([10, 20, 30]), [20, 40, 60]]
    assert list(axis.lines[0].get_xdata()) == [0.5, 1, 1.5] and list(axis.lines[2].get_xdata()) == [1, 1]
    assert axis.get_ylim() == (0, 101)
    write_curves(tmp_path / "a.png", history, title="toy")
    assert len(plotted[1].axes[0].lines) == 2
