"""The course of the training as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.report import plots

LINES = {
    "held_out": ("misled, held out", "#b00020"),
    "misled": ("misled, training batches", "#e65100"),
    "d_accuracy": ("D accuracy", "#9e9e9e"),
}
"""What is drawn: its name and colour."""


def write_curves(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str, judged: bool) -> None:
    """A PNG of the success over the updates.

    Args:
        path: where.
        rows: of ``metrics.jsonl``.
        title: heading of the figure.
        judged: there is a discriminator.
    """
    figure, axis = plots.figure((7, 4))
    for key, (label, colour) in LINES.items():
        if key != "d_accuracy" or judged:
            axis.plot(
                [row["step"] for row in rows], [100 * row[key] for row in rows], color=colour, label=label
            )
    axis.set(title=title, xlabel="update", ylabel="share in %", ylim=(0, 101))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    plots.save(figure, path)
