"""The certified accuracy by radius, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from advkit.report import plots
from advkit.report.plots import GREY, RED
from advkit.verify.smoothing.result import SmoothingResult


def write_curve(path: Path, result: SmoothingResult) -> None:
    """A PNG of the certified accuracy by l2 radius, as a step curve with its 95 % interval."""
    right = 1.04 * result.largest_radius
    radii = np.array(result.radii)
    places = np.concatenate([[0.0], radii, [right]])
    left = np.concatenate([result.right - np.arange(len(radii) + 1), [0]])
    figure, axis = plots.figure((6.5, 3.9))
    plots.steps(axis, places, left, result.n, "certified accuracy")
    axis.axvline(
        result.average_radius, color=RED, linewidth=1.2, label=f"average radius {result.average_radius:.3f}"
    )
    axis.axvline(
        result.largest_radius,
        color=GREY,
        linestyle="--",
        linewidth=1.2,
        label=f"most that {result.samples:,} samples certify: {result.largest_radius:.3f}",
    )
    axis.set(
        title=f"smoothed, sigma {result.sigma:g}: {result.data.name} {result.data.split}, n = {result.n:,}, "
        f"alpha {result.alpha:g}",
        xlabel="l2 radius",
        ylabel="accuracy in %",
        xlim=(0, right),
        ylim=(0, 101),
    )
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=9)
    plots.save(figure, path)
