"""The course of a training as a picture, from the rows of its ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.gan.monitor import covered
from advkit.report import plots

BLUE, RED, ORANGE, PINK, GREEN, GREY = "#1565c0", "#b00020", "#e65100", "#ef9a9a", "#2e7d32", "#9e9e9e"
CLASSIFIER = {
    "clean": ("clean, held out", BLUE),
    "robust": ("under PGD-10, held out", RED),
    "train_robust": ("under PGD-10, training images", PINK),
    "noisy": ("under noise, held out", RED),
    "train_noisy": ("under noise, training images", PINK),
    "certified": ("proved by intervals, held out", RED),
    "train_certified": ("proved by intervals, training images", PINK),
    "accuracy": ("on training batches, as trained", GREY),
}
ADVGAN = {
    "held_out": ("misled, held out", RED),
    "misled": ("misled, training batches", ORANGE),
    "d_accuracy": ("D accuracy", GREY),
}
SEMI = {
    "labelled_loss": ("labelled images", BLUE),
    "unlabelled_loss": ("real or generated", ORANGE),
    "g_loss": ("feature matching", GREY),
}
GAN = {
    "d_loss": ("D loss", BLUE),
    "g_loss": ("G loss", ORANGE),
    "loss": ("loss", BLUE),
    "reconstruction": ("reconstruction", GREEN),
    "divergence": ("divergence", ORANGE),
}
"""What is drawn of each kind of training: its name and colour."""

Rows = Sequence[Mapping[str, Any]]


def write_curves(path: Path, rows: Rows, *, title: str, best: float | None = None) -> None:
    """A PNG of a classifier's accuracies over the epochs; ``best`` is the epoch of the kept checkpoint."""
    figure, axis = plots.figure((7, 4))
    _lines(axis, rows, CLASSIFIER, "epoch")
    if best is not None:
        axis.axvline(best, color=GREY, linestyle=":", label="kept")
    axis.set(title=title, xlabel="epoch", ylabel="accuracy in %", ylim=(0, 101))
    _finish(figure, axis, path, "lower right")


def write_advgan_curves(path: Path, rows: Rows, *, title: str, judged: bool) -> None:
    """A PNG of the success of a perturbation generator; ``judged`` if there is a discriminator."""
    figure, axis = plots.figure((7, 4))
    _lines(axis, rows, {key: ADVGAN[key] for key in ADVGAN if judged or key != "d_accuracy"}, "step")
    axis.set(title=title, xlabel="update", ylabel="share in %", ylim=(0, 101))
    _finish(figure, axis, path, "lower right")


def write_semi_curves(path: Path, rows: Rows, *, title: str) -> None:
    """A PNG of the losses of semi-supervised training over the epochs, on a logarithmic axis."""
    figure, axis = plots.figure((7, 4))
    for key, (label, colour) in SEMI.items():
        losses = [max(row[key], 1e-8) for row in rows]
        axis.semilogy([row["epoch"] for row in rows], losses, color=colour, label=label)
    axis.set(title=title, xlabel="epoch", ylabel="loss")
    _finish(figure, axis, path, "best")


def write_gan_curves(path: Path, rows: Rows, *, title: str) -> None:
    """A PNG of the losses of a GAN or a VAE (left axis) and of the discriminator's accuracy (right axis)."""
    figure, losses = plots.figure((8, 4.5))
    counts = covered(rows)
    # A row that covers few steps (the last one may cover a single step) would show noise.
    rows = [row for row, count in zip(rows, counts, strict=True) if 5 * count >= max(counts)]
    lines = _lines(losses, rows, GAN, "step", scale=1)
    losses.set(title=title, xlabel="step", ylabel="loss")
    losses.grid(alpha=0.3)
    if "d_accuracy" in rows[0]:
        accuracy = losses.twinx()
        losses.set_zorder(accuracy.get_zorder() + 1)  # the losses above the accuracy
        losses.patch.set_visible(False)
        lines += _lines(accuracy, rows, {"d_accuracy": ("D accuracy", GREY)}, "step")
        lines.append(accuracy.axhline(50, color=GREY, linestyle=":", label="balance"))
        accuracy.set(ylabel="D accuracy in %", ylim=(0, 101))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    plots.save(figure, path)


def _lines(
    axis: Any, rows: Rows, what: Mapping[str, tuple[str, str]], x: str, scale: float = 100
) -> list[Any]:
    """The lines of those figures that the rows have."""
    return [
        line
        for key, (label, colour) in what.items()
        if rows and key in rows[0]
        for line in axis.plot(
            [row[x] for row in rows], [scale * row[key] for row in rows], color=colour, label=label
        )
    ]


def _finish(figure: Any, axis: Any, path: Path, legend: str) -> None:
    axis.grid(alpha=0.3)
    axis.legend(loc=legend)
    plots.save(figure, path)
