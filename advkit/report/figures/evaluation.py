"""The security curve and the minimum norms, and accuracy by the size of rotations and translations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.curve.scale import written
from advkit.evaluation.spatial.result import SpatialResult
from advkit.report import plots
from advkit.report.plots import BLUE, GREY, RED

BOXES = 20
"""Classes in a picture; of more, those that fall first."""
BETWEEN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Shares of a class at the ends of its whiskers and box, and at its median."""


def write_curve(path: Path, result: SecurityCurve) -> None:
    """A PNG of the robust accuracy by eps, as a step curve with its 95 % interval."""
    figure, axis = plots.figure((6.5, 3.9))
    right = _right_end(result)
    eps, left = np.array(result.curve.eps), np.array(result.curve.robust_correct)
    eps, left = np.append(eps[eps <= right], right), np.append(left[eps <= right], left[eps <= right][-1])
    plots.steps(axis, eps, left, result.n, "robust accuracy, upper bound")
    _mark(axis, result)
    axis.set(
        title=f"security curve: {result.data.name} {result.data.split}, n = {result.n:,}",
        xlabel=f"{result.norm} eps",
        ylabel="accuracy in %",
        xlim=(0, right),
        ylim=(0, 101),
    )
    _scale(axis, result)
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize=9)
    plots.save(figure, path)


def write_norms(path: Path, result: SecurityCurve) -> None:
    """A PNG of the minimum norms: a histogram of all, and a box for each class."""
    rows = sorted(result.classes, key=lambda row: math.inf if row.median.value is None else row.median.value)[
        :BOXES
    ]
    rows = sorted(rows, key=lambda row: row.label)
    figure, (above, below) = plots.figure(
        (6.5, 2.6 + 0.27 * len(rows)), 2, sharex=True, height_ratios=(2.1, 0.27 * len(rows))
    )
    right = _right_end(result)
    found = [norm for norm in result.norms if 0 < norm <= right]
    above.hist(found, bins=_bins(result, right), color=BLUE, alpha=0.75)
    if result.median.value is not None and result.median.value <= right:
        median = (
            f"median of all: {result.median.value * result.parts:.3g}{'/255' if result.parts > 1 else ''}"
        )
        above.axvline(result.median.value, color=RED, linewidth=1.5, label=median)
    others = {
        "misclassified, norm 0": result.n - result.clean_correct,
        "farther": result.clean_correct - result.unbroken - len(found),
        "where nothing was found": result.unbroken,
    }
    not_drawn = [f"{count:,} {what}" for what, count in others.items() if count]
    above.set(
        ylim=(0, None),
        ylabel="images",
        title=f"minimum norms: {result.data.name} {result.data.split}, n = {result.n:,}",
    )
    boxes = [_box(result, row.label, f"{row.name} ({row.n:,})", right) for row in rows]
    below.bxp(
        boxes,
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": BLUE, "alpha": 0.3, "linewidth": 0},
        medianprops={"color": RED, "linewidth": 1.5},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
    )
    below.invert_yaxis()
    below.set(
        xlabel=f"{result.norm} distance of the nearest success", ylabel="class (images)", xlim=(0, right)
    )
    for axis in (above, below):
        _mark(axis, result)
        axis.grid(alpha=0.3, axis="x")
    if not_drawn:
        above.plot([], [], " ", label=f"not drawn: {', '.join(not_drawn)}")
    above.legend(loc="best", fontsize=9)
    _scale(below, result)
    plots.save(figure, path)


def _box(result: SecurityCurve, label: int, name: str, right: float) -> dict[str, Any]:
    """What ``bxp`` wants to know of one class; what is beyond the right end is drawn at it."""
    norms = sorted(min(image, right) for image in _of_class(result, label))
    low, first, middle, third, high = (norms[math.ceil(share * len(norms)) - 1] for share in BETWEEN)
    return {"label": name, "whislo": low, "q1": first, "med": middle, "q3": third, "whishi": high}


def _of_class(result: SecurityCurve, label: int) -> list[float]:
    return [norm for image, norm in zip(result.images, result.norms, strict=True) if image.label == label]


def _right_end(result: SecurityCurve) -> float:
    """Beyond nearly all minimum norms and, where that is not much farther, beyond the marks."""
    found = sorted(norm for norm in result.norms if 0 < norm < math.inf)
    end = found[math.ceil(0.99 * len(found)) - 1] if found else result.points[-1].eps
    marks = [mark.eps for mark in result.marks if mark.eps <= 2 * end]
    return 1.06 * max([end, *marks])


def _mark(axis: Any, result: SecurityCurve) -> None:
    """Dashed and dotted lines at the usual threat models."""
    for mark, style in zip(result.marks, ("--", ":"), strict=False):
        said = f"{mark.said}: {written(mark.eps, result.norm)}"
        axis.axvline(mark.eps, color=GREY, linestyle=style, linewidth=1.2, label=said)


def _bins(result: SecurityCurve, right: float) -> list[float]:
    """Edges of about forty bins; those of l0 lie between the whole numbers."""
    if result.norm != "l0":
        return [right * number / 40 for number in range(41)]
    width = math.ceil(right / 40)
    return [0.5 + width * number for number in range(math.ceil(right / width) + 1)]


def _scale(axis: Any, result: SecurityCurve) -> None:
    """Ticks in 255ths where the round sizes are such, and whole ones in l0."""
    if result.norm == "l0":
        axis.xaxis.get_major_locator().set_params(integer=True)
    ticks = [point.eps for point in result.points if "/" in written(point.eps, result.norm)]
    if len(ticks) > 2:
        axis.set_xticks([0, *ticks], ["0", *(written(eps, result.norm) for eps in ticks)])


def write_sizes(path: Path, result: SpatialResult) -> None:
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
