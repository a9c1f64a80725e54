"""Figures of rotations and translations."""

from __future__ import annotations

from pathlib import Path

from advkit.evaluation.spatial.result import SpatialResult
from advkit.report import plots


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
