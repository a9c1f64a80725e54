"""Charts of certified margins, and of certified accuracy by radius."""

from __future__ import annotations

import math

from advkit.report.charts import Axis, Line, histogram, lines, rows_of
from advkit.verify.certification.result import CertificationResult
from advkit.verify.smoothing.result import SmoothingResult

COLOURS = {
    "interval": "green",
    "linear": "blue",
    "optimised": "violet",
    "complete": "amber",
    "undecided": "grey",
}
BINS = 40
SHOWN = 0.99
"""Share of the margins up to which they are drawn; below 0 they are as far as above it."""


def margins(result: CertificationResult) -> str:
    """A histogram of the margins by what proved them."""
    groups: dict[str, list[float]] = {name: [] for name in COLOURS}
    for verdict in result.verdicts:
        if verdict.margin is not None:
            proved = verdict.method if verdict.status == "certified" else None
            groups[proved or "undecided"].append(verdict.margin)
    every = sorted(margin for group in groups.values() for margin in group)
    high = max(0.0, every[math.ceil(SHOWN * len(every)) - 1])
    low = min(0.0, max(every[0], -high))
    width = (high - low or 1.0) / BINS
    edges = [width * at for at in range(math.floor(low / width), math.ceil(high / width) + 1)]
    some = {name: group for name, group in groups.items() if group}
    x = Axis("proved lower bound of the true logit's lead", edges[0], edges[-1])
    colours = [COLOURS[name] for name in some]
    said = {name if name == "undecided" else f"proved by {name}": group for name, group in some.items()}
    return histogram("certified margins", edges, said, x, colours=colours, marks=[(0.0, "certified above 0")])


def radii(result: SmoothingResult) -> str:
    """The certified accuracy by l2 radius, as a step curve with its 95 % interval."""
    places = [0.0, *result.radii, right := 1.04 * result.largest_radius]
    left = [*(result.right - at for at in range(len(result.radii) + 1)), 0]
    points = [(place, count / result.n) for place, count in zip(places, left, strict=True)]
    marks = (
        (result.average_radius, f"average radius {result.average_radius:.3f}"),
        (result.largest_radius, f"most that {result.samples:,} samples certify: {result.largest_radius:.3f}"),
    )
    line = Line("certified accuracy", points, step=True, band=rows_of(result.n, left, places))
    return lines("certified accuracy by radius", [line], Axis("l2 radius", 0.0, right), marks=marks)
