"""The course of semi-supervised training as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.report import plots

_LOSSES = {
    "labelled_loss": ("labelled images", "#1565c0"),
    "unlabelled_loss": ("real or generated", "#e65100"),
    "g_loss": ("feature matching", "#9e9e9e"),
}


def write_curves(path: Path, history: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """A PNG of the losses over the epochs, on a logarithmic axis.

    Args:
        path: where.
        history: rows of metrics.
        title: heading of the figure.
    """
    figure, axis = plots.figure((7, 4))
    epochs = [row["epoch"] for row in history]
    for key, (label, color) in _LOSSES.items():
        axis.semilogy(epochs, [max(row[key], 1e-8) for row in history], color=color, label=label)
    axis.set(title=title, xlabel="epoch", ylabel="loss")
    axis.grid(alpha=0.3)
    axis.legend(loc="best")
    plots.save(figure, path)
