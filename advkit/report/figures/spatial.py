"""Figures of rotations and translations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from advkit.data.data import Data
from advkit.evaluation.spatial.result import SpatialResult, SpatialVerdict
from advkit.report import plots

SHOWN = 8


def least_moved(result: SpatialResult) -> list[SpatialVerdict]:
    """The broken images that the smallest moves break, at most eight."""
    broken = [verdict for verdict in result.verdicts if verdict.move is not None]
    return sorted(broken, key=lambda v: (v.move.size if v.move else 0.0, v.id))[:SHOWN]


def write_examples(
    path: Path, shown: Sequence[SpatialVerdict], data: Data, moved: Tensor, said: Sequence[int]
) -> None:
    """A PNG with the originals above and the moved images below, one column an example.

    Args:
        path: where.
        shown: the examples.
        data: what was judged.
        moved: (len(shown), C, H, W) their moved images.
        said: what the model calls each of them.
    """
    places = {sample: index for index, sample in enumerate(data.ids.tolist())}
    original, _ = data.batch(torch.tensor([places[verdict.id] for verdict in shown]))
    figure, axes = plots.figure((1.35 * len(shown) + 0.6, 3.5), 2, len(shown), squeeze=False)
    for row, images in enumerate((original, moved)):
        for column, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
    for column, (verdict, label) in enumerate(zip(shown, said, strict=True)):
        to = verdict.move
        assert to is not None
        axes[0, column].set_title(_name(data, verdict.label), fontsize=10)
        axes[1, column].set_title(f"→ {_name(data, label)}", fontsize=10, color="#b00020")
        axes[1, column].set_xlabel(
            f"{_signed(to.angle)}°\n{_signed(to.across)}, {_signed(to.down)} px", fontsize=9
        )
    plots.save(figure, path)


def write_curve(path: Path, result: SpatialResult) -> None:
    """A PNG of the accuracy that the grid leaves, by how much of the allowed rotation and shift is used."""
    figure, axis = plots.figure((6.5, 3.8))
    sizes = sorted({0.0, 1.0, *(v.grid.size for v in result.verdicts if v.grid is not None)})
    left = [100 * result.left_at(size) for size in sizes]
    axis.step([100 * size for size in sizes], left, where="post", color="#1565c0")
    axis.set(
        title=f"turned by up to ±{result.rotation:g}° and shifted by up to ±{result.shift:g} px",
        xlabel="share of that range, in %",
        ylabel="accuracy left in %",
        xlim=(0, 100),
        ylim=(0, 101),
    )
    axis.grid(alpha=0.3)
    plots.save(figure, path)


def _signed(value: float) -> str:
    return f"{value:+.2g}" if abs(value) >= 0.05 else "0"


def _name(data: Data, label: int) -> str:
    return data.class_names[label] if label < len(data.class_names) else str(label)
