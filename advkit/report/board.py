"""A page about many runs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from advkit.core.errors import readable
from advkit.core.run_list import number_of
from advkit.report.charts import DASHES, SERIES, Axis, Line, lines
from advkit.report.measured import BOUNDS, Measured
from advkit.report.outcome import Outcome, Picture, Table

MEASURES = ("clean", "robust", "certified", "smoothed", "corrupted")
"""Columns of the table, where a run has such a figure."""
DRAWN = len(SERIES) * len(DASHES)
"""Curves of a chart at most: so many look different."""


def board(measured: Sequence[Measured], said: Sequence[str], out: Path) -> Outcome:
    """The page of these runs, the newest first.

    Args:
        out: file of the page, from which it links to the reports.
    """
    ranked = sorted(measured, key=lambda one: one.row.started, reverse=True)
    shown = [name for name in MEASURES if any(name in one.main for one in ranked)]
    return Outcome(
        title=f"{len(ranked):,} runs",
        sentences=tuple(said),
        tables=(_table(ranked, shown, out),),
        pictures=(*_scatter(ranked), *_curves(ranked)),
        files=(out,),
        result={"runs": [str(one.row.path) for one in ranked]},
    )


def _table(ranked: Sequence[Measured], shown: Sequence[str], out: Path) -> Table:
    rows = []
    for one in ranked:
        figures = (_whole(one.main[name].text) if name in one.main else "" for name in shown)
        rows.append(
            (
                _called(one),
                one.row.model,
                one.data,
                one.under,
                f"{one.n:,}",
                *figures,
                one.checks,
                one.row.command,
                one.row.started[:10],
            )
        )
    measures = (f"{name}, {BOUNDS[name]}" if name in BOUNDS else name for name in shown)
    return Table(
        "",
        ("run", "model", "data", "threat", "n", *measures, "checks", "command", "date"),
        tuple(rows),
        "Accuracies have 95 % intervals. Only figures on the same images and under the same threat can be "
        "compared, and `advkit compare` pairs them.",
        links=tuple(_link(one, out) for one in ranked),
        filters=("data", "threat", "checks", "command"),
    )


def _called(one: Measured) -> str:
    """The number of a run, or the name of its folder, behind that of the run that it is a part of."""
    path = one.row.path
    inside = (path.parent / "resolved.json").exists()
    folders = (path.parent, path) if inside else (path,)
    return "/".join(str(number_of(folder) or folder.name) for folder in folders)


def _whole(text: str) -> str:
    """A figure that a narrow column breaks only before its interval."""
    return text.replace(" %", "\u00a0%").replace(", ", ",\u00a0")


def _link(one: Measured, out: Path) -> str:
    """To its report, from the page; empty if it has none."""
    report = one.row.path / "report.html"
    if not report.exists():
        return ""
    return quote(readable(Path(os.path.relpath(report, out.parent)).as_posix()))


def _scatter(ranked: Sequence[Measured]) -> Iterator[Picture]:
    """Robust against clean accuracy, a colour for each threat on the same images."""
    found = [(row, one) for row, one in enumerate(ranked) if {"clean", "robust"} <= one.main.keys()]
    if len(found) < 2:
        return
    groups = Counter(f"{one.data}, {one.under}" for _, one in found)
    common = [group for group, _ in groups.most_common(len(SERIES) - 1)]
    points = []
    for name, colour in zip([*common, "others"], SERIES, strict=False):
        for doubted in (False, True):
            some = [
                (row, one)
                for row, one in found
                if (group if (group := f"{one.data}, {one.under}") in common else "others") == name
                and (one.trusted is False) == doubted
            ]
            points.append(
                Line(
                    name,
                    [(one.main["clean"].value, one.main["robust"].value) for _, one in some],
                    colour,
                    dots=True,
                    titles=[f"{_called(one)}, {one.row.model}" for _, one in some],
                    hollow=doubted,
                    rows=[row for row, _ in some],
                )
            )
    low = math.floor(10 * min(0.9, *(one.main["clean"].value for _, one in found))) / 10
    ticks = tuple((place, f"{100 * place:g} %") for place in (low + (1 - low) * at / 4 for at in range(5)))
    drawn = [line for line in points if line.points]
    title = "robust against clean accuracy"
    yield Picture.chart(
        title,
        lines(title, drawn, Axis("clean accuracy", low, ticks=ticks)),
        f"{len(found):,} runs; each colour is one threat on the same images. A ring: checks doubt the robust "
        "accuracy.",
    )


def _curves(ranked: Sequence[Measured]) -> Iterator[Picture]:
    """Security curves over each other, a chart for each norm."""
    norms: dict[str, list[tuple[int, Measured]]] = {}
    for row, one in enumerate(ranked):
        if one.curve:
            norms.setdefault(one.under.split()[0], []).append((row, one))
    for norm, found in sorted(norms.items(), key=lambda norm: -len(norm[1])):
        drawn = [
            Line(
                f"{_called(one)}, {one.row.model}, {one.data}",
                one.curve,
                SERIES[at % len(SERIES)],
                dashes=DASHES[at // len(SERIES)],
                rows=[row],
            )
            for at, (row, one) in enumerate(found[:DRAWN])
        ]
        high = max(eps for line in drawn for eps, _ in line.points)
        left = f", the newest of {len(found):,}" if len(found) > DRAWN else ""
        yield Picture.chart(
            f"robust accuracy by {norm} eps",
            lines(f"robust accuracy by {norm} eps", drawn, Axis("eps", 0.0, high)),
            f"Upper bounds, of {len(drawn)} runs{left}.",
        )
