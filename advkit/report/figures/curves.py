"""The course of a training as charts, from the rows of its ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.core.runs import history
from advkit.gan.monitor import covered
from advkit.report.charts import DASHES, PERCENT, SERIES, Axis, Line, lines
from advkit.report.outcome import Picture

CLASSIFIER = {
    "clean": "clean, held out",
    "robust": "under PGD-10, held out",
    "train_robust": "under PGD-10, training images",
    "noisy": "under noise, held out",
    "train_noisy": "under noise, training images",
    "certified": "proved by intervals, held out",
    "train_certified": "proved by intervals, training images",
    "accuracy": "on training batches, as trained",
}
ADVGAN = {"held_out": "misled, held out", "misled": "misled, training batches", "d_accuracy": "D accuracy"}
SEMI = {
    "labelled_loss": "labelled images",
    "unlabelled_loss": "real or generated",
    "g_loss": "feature matching",
}
GAN = {
    "d_loss": "D loss",
    "g_loss": "G loss",
    "loss": "loss",
    "reconstruction": "reconstruction",
    "divergence": "divergence",
}
"""What is drawn of each kind of training, by its name in the rows."""
Rows = Sequence[Mapping[str, Any]]


def course(
    folder: Path,
    what: Mapping[str, str],
    caption: str,
    *,
    name: str = "curves",
    kept: int | None = None,
    steady: bool = False,
) -> Iterator[Picture]:
    """The chart of a training, shares in per cent or losses on a logarithmic axis; none without rows.

    Args:
        folder: the run folder; the chart is written there.
        what: which figures, and what they are.
        kept: the update whose model was kept.
        steady: leave out rows that cover few steps (the last one may cover a single step): they are noise.
    """
    rows = history(folder)
    if steady:
        counts = covered(rows)
        rows = [row for row, count in zip(rows, counts, strict=True) if 5 * count >= max(counts)]
    made = chart(rows, what, f"{name} during training", kept)
    if made:
        yield Picture.chart(name, made, caption, folder / f"{name}.svg")


def chart(rows: Rows, what: Mapping[str, str], title: str, kept: int | None = None) -> str:
    """The lines of those figures that the rows have, by epoch or step; empty if they have none."""
    known = [key for key in what if rows and key in rows[0]]
    if not known:
        return ""
    by = "epoch" if "epoch" in rows[0] else "step"
    losses = any(key.endswith("loss") for key in known)
    drawn = [
        Line(
            what[key], [(row[by], row[key]) for row in rows], SERIES[at % len(SERIES)], dashes=DASHES[at % 4]
        )
        for at, key in enumerate(known)
    ]
    marks = [(row[by], "kept") for row in rows if row["step"] == kept][:1]
    ends = [row[by] for row in rows]
    x = Axis(by, min(ends), max(ends)) if len(rows) > 1 else Axis(by, 0.0, max(ends))
    return lines(title, drawn, x, _losses(drawn) if losses else PERCENT, marks=marks)


def _losses(drawn: Sequence[Line]) -> Axis:
    """Of losses: logarithmic where all are positive and far apart."""
    values = [value for line in drawn for _, value in line.points]
    low, high = min(values), max(values)
    if low > 0 and high / low > 50:
        return Axis("loss", low, high, log=True)
    return Axis("loss", min(0.0, low), high or 1.0)
