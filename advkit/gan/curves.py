"""The course of a GAN's game as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit import files
from advkit.gan.monitor import covered


def write_curves(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """A PNG of both losses (left axis) and of the discriminator's accuracy (right axis) over the steps.

    Args:
        path: where.
        rows: of ``metrics.jsonl``: step, d_loss, g_loss and d_accuracy.
        title: what stands above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.subplots()
    accuracy = losses.twinx()
    losses.set_zorder(accuracy.get_zorder() + 1)  # the losses above the accuracy
    losses.patch.set_visible(False)
    counts = covered(rows)
    # A row that covers few steps (the last one may cover a single step) would show noise.
    rows = [row for row, count in zip(rows, counts, strict=True) if 5 * count >= max(counts)]
    steps = [row["step"] for row in rows]
    lines = [
        *losses.plot(steps, [row["d_loss"] for row in rows], color="#1565c0", label="D loss"),
        *losses.plot(steps, [row["g_loss"] for row in rows], color="#e65100", label="G loss"),
        *accuracy.plot(steps, [100 * row["d_accuracy"] for row in rows], color="#9e9e9e", label="D accuracy"),
        accuracy.axhline(50, color="#9e9e9e", linestyle=":", label="balance"),
    ]
    losses.set(title=title, xlabel="step", ylabel="loss")
    losses.grid(alpha=0.3)
    accuracy.set(ylabel="D accuracy in %", ylim=(0, 101))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
