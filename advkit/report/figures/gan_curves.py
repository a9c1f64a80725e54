"""The curves of GAN training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.gan.monitor import covered
from advkit.report import plots

GREY = "#9e9e9e"
LOSSES = {
    "d_loss": ("D loss", "#1565c0"),
    "g_loss": ("G loss", "#e65100"),
    "loss": ("loss", "#1565c0"),
    "reconstruction": ("reconstruction", "#2e7d32"),
    "divergence": ("divergence", "#e65100"),
}
"""What the left axis can show: its name and colour."""


def write_curves(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """A PNG of the losses (left axis) and of the discriminator's accuracy (right axis) over the steps.

    Args:
        path: where.
        rows: of ``metrics.jsonl``: step, d_loss, g_loss and d_accuracy, or the losses of a vae.
        title: heading of the figure.
    """
    figure, losses = plots.figure((8, 4.5))
    counts = covered(rows)
    # A row that covers few steps (the last one may cover a single step) would show noise.
    rows = [row for row, count in zip(rows, counts, strict=True) if 5 * count >= max(counts)]
    steps = [row["step"] for row in rows]
    lines = [
        line
        for name, (label, colour) in LOSSES.items()
        if name in rows[0]
        for line in losses.plot(steps, [row[name] for row in rows], color=colour, label=label)
    ]
    losses.set(title=title, xlabel="step", ylabel="loss")
    losses.grid(alpha=0.3)
    if "d_accuracy" in rows[0]:
        accuracy = losses.twinx()
        losses.set_zorder(accuracy.get_zorder() + 1)  # the losses above the accuracy
        losses.patch.set_visible(False)
        right = [100 * row["d_accuracy"] for row in rows]
        lines += accuracy.plot(steps, right, color=GREY, label="D accuracy")
        lines.append(accuracy.axhline(50, color=GREY, linestyle=":", label="balance"))
        accuracy.set(ylabel="D accuracy in %", ylim=(0, 101))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    plots.save(figure, path)
