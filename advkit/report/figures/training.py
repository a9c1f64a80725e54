"""The course of a training as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.report import plots

_LINES = {
    "clean": ("clean, held out", "#1565c0"),
    "robust": ("under PGD-10, held out", "#b00020"),
    "train_robust": ("under PGD-10, training images", "#ef9a9a"),
    "noisy": ("under noise, held out", "#b00020"),
    "train_noisy": ("under noise, training images", "#ef9a9a"),
    "certified": ("proved by intervals, held out", "#b00020"),
    "train_certified": ("proved by intervals, training images", "#ef9a9a"),
    "accuracy": ("on training batches, as trained", "#9e9e9e"),
}


def write_curves(
    path: Path, history: Sequence[Mapping[str, Any]], *, title: str, best: float | None = None
) -> None:
    """A PNG of the accuracies over the epochs.

    Args:
        path: where.
        history: rows of `advkit.training.trainer.Trained`.
        title: heading of the figure.
        best: epoch of the checkpoint that was kept, to be marked.
    """
    figure, axis = plots.figure((7, 4))
    epochs = [row["epoch"] for row in history]
    for key, (label, color) in _LINES.items():
        if history and key in history[0]:
            axis.plot(epochs, [100 * row[key] for row in history], color=color, label=label)
    if best is not None:
        axis.axvline(best, color="#9e9e9e", linestyle=":", label="kept")
    axis.set(title=title, xlabel="epoch", ylabel="accuracy in %", ylim=(0, 101))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    plots.save(figure, path)
