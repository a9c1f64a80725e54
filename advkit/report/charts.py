"""Charts as SVG: sharp in every size, with text that a search and a screen reader find, light and dark.

A chart is `WIDTH` units wide, so that its text can be read at the width of a phone. A page holds `STYLE`
once; a file (`alone`) has it inside.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from advkit.core.errors import readable
from advkit.core.stats import accuracy, clopper_pearson

WIDTH = 440
LEFT, RIGHT, HEIGHT = 46, 12, 190
"""Margins beside the frame of a chart with two axes, and the height of that frame."""
POINTS = 600
"""Points of a line at most; of a longer one, some that are evenly spread."""
BAND = 200
"""Places at most at which an interval is computed."""

LIGHT = {"ink": "#1b1f24", "quiet": "#5b6570", "line": "#d9dee4", "paper": "#ffffff", "blue": "#1565c0"}
LIGHT |= {"red": "#b3261e", "amber": "#b45309", "green": "#2e7d32", "violet": "#7b1fa2", "grey": "#7b8591"}
DARK = {"ink": "#e4e8ec", "quiet": "#9aa5b1", "line": "#343b43", "paper": "#14171a", "blue": "#6cb0ff"}
DARK |= {"red": "#ff8a80", "amber": "#ffb870", "green": "#7ccf80", "violet": "#d0a2ff", "grey": "#8b96a3"}
SERIES = ("blue", "red", "amber", "green", "violet", "grey")
"""Colours of lines, in turn."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""Of lines of these colours, for those who see no difference between them."""
MARKS = ("3 3", "1 3", "7 3 1 3")
"""Dashes of vertical lines."""


def _rules(colours: Mapping[str, str]) -> str:
    kinds = "".join(
        f".chart .{name}{{fill:{of}}}.chart .l-{name}{{stroke:{of}}}" for name, of in colours.items()
    )
    return f"{kinds}.chart text{{fill:{colours['ink']}}}.chart .note{{fill:{colours['quiet']}}}"


STYLE = (
    ".chart{display:block;width:100%;max-width:38rem;height:auto;overflow:visible;print-color-adjust:exact;"
    'font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}'
    ".chart path,.chart line{fill:none;stroke-width:1}.chart .thick{stroke-width:2}"
    f"{_rules(LIGHT)}@media screen and (prefers-color-scheme:dark){{{_rules(DARK)}}}"
    ".chart .band{opacity:.2;stroke:none}.chart .end{text-anchor:end}.chart .middle{text-anchor:middle}"
    ".chart .hollow{fill:none;stroke-width:1.5}"
)


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart."""

    name: str
    parts: tuple[tuple[float, str], ...]
    """Lengths from the left, each with its colour; ``""``: left empty."""
    interval: tuple[float, float] | None = None
    """Ends of its whisker."""
    text: str = ""
    """Its figures in words, at the right."""
    mark: float | None = None
    """Where a line crosses it."""

    @classmethod
    def of(cls, name: str, correct: int, n: int, colour: str = "blue") -> Bar:
        """A share with its exact 95 % interval.

        Example:
            >>> from advkit.report.charts import Bar
            >>> Bar.of("clean", 90, 100).text
            '90.0 % [82.4, 95.1]'
        """
        low, high = clopper_pearson(correct, n)
        return cls(name, ((correct / n, colour),), (low, high), accuracy(correct, n))


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

    label: str = ""
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[tuple[float, str], ...] = ()
    """Places and their names; by default round numbers."""
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is, from 0 to 1; beyond the ends, at them."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low or 1.0)

    @property
    def named(self) -> tuple[tuple[float, str], ...]:
        """The ticks within the axis."""
        ticks = self.ticks or (_decades if self.log else _round)(self.low, self.high)
        return tuple((value, name) for value, name in ticks if self.low <= value <= self.high)


PERCENT = Axis("", 0.0, 1.0, tuple((share / 4, f"{25 * share} %") for share in range(5)))


@dataclass(frozen=True)
class Line:
    """A line of a chart, or points."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "blue"
    step: bool = False
    """Each value holds up to the next place."""
    dashes: str = ""
    thin: bool = False
    """In the background: the legend leaves it out."""
    band: Sequence[tuple[float, float, float]] = ()
    """Places with the lower and the upper end of an interval."""
    dots: bool = False
    """Points with their titles, not joined."""
    titles: Sequence[str] = ()
    """What each point is."""
    hollow: bool = False
    """Points with a rim only."""
    rows: Sequence[int] = ()
    """Of the table that shows the same and whose filters hide it: a row for each point, or one for a line."""


def bars(
    title: str, rows: Sequence[Bar], *, axis: Axis = PERCENT, legend: Mapping[str, str] | None = None
) -> str:
    """Bars below each other, the name and the figures above each.

    Args:
        title: for those who do not see it; the rows are described to them, too.
    """
    made, top = _legend([(name, colour, None) for colour, name in (legend or {}).items()])
    bottom = top + 34 * len(rows)
    made += [_tick(axis, value, top + 16, bottom) for value, _ in axis.named]
    for number, row in enumerate(rows):
        y, start = top + 34 * number, 0.0
        made.append(
            _text(0, y + 13, _short(row.name, 66 - len(row.text))) + _text(WIDTH, y + 13, row.text, "end")
        )
        for length, colour in row.parts:
            ends = [_across(axis, end, 1) for end in (start, start + length)]
            if colour and ends[1] > ends[0]:
                made.append(_box(ends[0], y + 19, ends[1] - ends[0], 12, colour))
            start += length
        if row.interval:
            low, high = (_across(axis, end, 1) for end in row.interval)
            made.append(f'<path class="l-ink" d="M{low} {y + 21}v8m0-4H{high}m0-4v8"/>')
        if row.mark is not None:
            made.append(f'<path class="l-red thick" d="M{_across(axis, row.mark, 1)} {y + 18}v14"/>')
    kinds = ("", *("middle",) * (len(axis.named) - 2), "end")
    for kind, (value, name) in zip(kinds, axis.named, strict=False):
        made.append(_text(_across(axis, value, 1), bottom + 14, name, f"note {kind}"))
    if axis.label:
        made.append(_text(WIDTH, bottom + 29, axis.label, "note end"))
    described = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return _svg(title, described, bottom + (34 if axis.label else 19), made)


def lines(
    title: str, curves: Sequence[Line], x: Axis, y: Axis = PERCENT, *, marks: Sequence[tuple[float, str]] = ()
) -> str:
    """Lines, steps and points over two axes.

    Args:
        title: for those who do not see it.
        curves: the last on top.
        marks: places of vertical dashed lines, and what they are.
    """
    named = [
        (curve.name, curve.colour, None if curve.dots else curve.dashes) for curve in curves if not curve.thin
    ]
    made, top = _legend([*dict.fromkeys(named), *_said_of(marks)])
    made += [*_frame(x, y, top), *_marked(marks, x, top)]
    for curve in curves:
        made += _curve(curve, x, y, top)
    described = "; ".join(_ends(curve) for curve in curves if curve.points)
    return _svg(title, described, top + HEIGHT + 34, made)


def _ends(curve: Line) -> str:
    if curve.dots:
        return f"{curve.name}: {len(curve.points):,} points"
    (place, value), (last_place, last) = curve.points[0], curve.points[-1]
    return f"{curve.name}: from {value:.3g} at {place:.3g} to {last:.3g} at {last_place:.3g}"


def histogram(
    title: str,
    edges: Sequence[float],
    groups: Mapping[str, Sequence[float]],
    x: Axis,
    *,
    colours: Sequence[str] = SERIES,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Counts of values between edges, groups on top of each other.

    Args:
        title: for those who do not see it.
        edges: rising; values beyond them count in the first and the last bin.
        groups: their values, by name.
    """
    counts = {name: binned(values, edges) for name, values in groups.items()}
    most = max((sum(column) for column in zip(*counts.values(), strict=True)), default=0)
    y = Axis("images", 0.0, max(1.0, 1.05 * most))
    named = [
        (f"{name} ({len(groups[name]):,})", colour, None)
        for name, colour in zip(groups, colours, strict=False)
    ]
    made, top = _legend([*named, *_said_of(marks)])
    made += _frame(x, y, top)
    below = [0.0] * (len(edges) - 1)
    for colour, column in zip(colours, counts.values(), strict=False):
        for place, count in enumerate(column):
            if count:
                left, right = _across(x, edges[place]), _across(x, edges[place + 1])
                low, high = (_up(y, end, top) for end in (below[place], below[place] + count))
                made.append(_box(left, high, right - left, low - high, colour))
                below[place] += count
    made += _marked(marks, x, top)
    described = "; ".join(f"{len(values):,} {name}" for name, values in groups.items())
    return _svg(title, described, top + HEIGHT + 34, made)


def binned(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    """How many values each bin holds; one at an edge belongs to the bin on its right, the last edge's to the
    last bin."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return counts


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[int]], rows: str, columns: str) -> str:
    """Counts of true against predicted classes: the darker, the larger the share of its row.

    Args:
        title: for those who do not see it.
        counts: (k, k), rows are true classes.
    """
    left = min(110, 14 + 7 * max(map(len, names)))
    side = min(34.0, (WIDTH - left) / len(names))
    long = max(map(len, names)) > side / 7
    top = 34.0 if not long else 18.0 + min(96, 8 + 6 * max(map(len, names)))
    made = [_text(0, 12, f"↓ {rows}, → {columns}", "note")]
    for at, name in enumerate(names):
        x, y = left + side * (at + 0.5), top + side * (at + 0.5) + 4
        turned = f' transform="rotate(-55 {x:.1f} {top - 5})"' if long else ""
        made.append(_text(round(x, 1), top - 5, _short(name, 15), "" if long else "middle", turned))
        made.append(_text(left - 6, round(y, 1), _short(name, 15), "end"))
    for down, row in enumerate(counts):
        for across, count in enumerate(row):
            if count:
                x, y = left + side * across, top + side * down
                share = f' opacity="{0.12 + 0.5 * count / sum(row):.2f}"'
                made.append(_box(x, y, side - 1, side - 1, "blue" if down == across else "red", share))
                made.append(_text(round(x + side / 2, 1), round(y + side / 2 + 4, 1), f"{count}", "middle"))
    off = sorted(
        (
            (count, at, to)
            for at, row in enumerate(counts)
            for to, count in enumerate(row)
            if at != to and count
        ),
        key=lambda cell: (-cell[0], cell[1:]),
    )[:5]
    described = "; ".join(f"{count} of {names[at]} as {names[to]}" for count, at, to in off)
    return _svg(title, described, round(top + side * len(names) + 4), made)


def rows_of(n: int, left: Sequence[int], places: Sequence[float]) -> list[tuple[float, float, float]]:
    """The exact 95 % interval of ``left`` of ``n`` images at some of the places, for a band."""
    count = min(len(places), BAND)
    some = sorted({round(at * (len(places) - 1) / max(1, count - 1)) for at in range(count)})
    return [(places[at], *clopper_pearson(left[at], n)) for at in some]


def alone(svg: str) -> str:
    """The chart as a file of its own."""
    head, _, rest = svg.partition(">")
    style = f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%"/>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'
    )


def _svg(title: str, described: str, height: float, made: Iterable[str]) -> str:
    inside = f"<title>{_said(title)}</title><desc>{_said(described)}</desc>{''.join(made)}"
    return f'<svg class="chart" role="img" viewBox="-2 0 {WIDTH + 4} {height}">{inside}</svg>'


def _said(text: str) -> str:
    """As XML takes it: no markup, and no control characters."""
    return escape("".join(sign if sign >= " " else " " for sign in readable(text)))


def _short(text: str, most: int) -> str:
    return text if len(text) <= max(most, 6) else f"{text[: max(most, 6) - 1]}…"


def _text(x: float, y: float, text: str, kind: str = "", more: str = "") -> str:
    which = f' class="{kind.strip()}"' if kind.strip() else ""
    return f'<text x="{x:g}" y="{y:g}"{which}{more}>{_said(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str, more: str = "") -> str:
    return (
        f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
        f'height="{max(height, 0.5):.1f}"{more}/>'
    )


def _across(axis: Axis, value: float, margin: int = LEFT) -> float:
    """Where a value is from left to right; bars have hardly a margin."""
    right = RIGHT if margin == LEFT else margin
    return round(margin + (WIDTH - margin - right) * axis.at(value), 1)


def _up(axis: Axis, value: float, top: float) -> float:
    return round(top + HEIGHT * (1 - axis.at(value)), 1)


def _tick(axis: Axis, value: float, top: float, bottom: float) -> str:
    return f'<path class="l-line" d="M{_across(axis, value, 1)} {top}V{bottom}"/>'


def _legend(named: Sequence[tuple[str, str, str | None]]) -> tuple[list[str], int]:
    """Names with samples of their colours, a line where one has dashes, and the height below them."""
    made, x, y = list[str](), 0.0, 0
    for name, colour, dashes in named:
        shown = _short(name, 60)
        wide = 24 + 6.3 * len(shown)
        if x and x + wide > WIDTH:
            x, y = 0.0, y + 17
        if dashes is None:
            made.append(_box(x, y + 4, 10, 10, colour))
        else:
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            made.append(f'<path class="l-{colour} thick"{dashed} d="M{x:g} {y + 9}h14"/>')
        made.append(_text(x + 18, y + 13, shown))
        x += wide + 8
    return made, y + 24 if named else 6


def _frame(x: Axis, y: Axis, top: int) -> list[str]:
    """Axes with their ticks and names."""
    made, bottom = [], top + HEIGHT
    for value, name in y.named:
        at = _up(y, value, top)
        made.append(f'<path class="l-line" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        made.append(_text(LEFT - 5, at + 4, name, "note end"))
    taken = -100.0
    for value, name in x.named:
        at = _across(x, value)
        made.append(f'<path class="l-line" d="M{at} {top}V{bottom}"/>')
        if at - 3.3 * len(name) > taken + 4:
            made.append(_text(at, bottom + 14, name, "note middle"))
            taken = at + 3.3 * len(name)
    made.append(_text(WIDTH - RIGHT, bottom + 29, x.label, "note end"))
    if y.label:
        middle = top + HEIGHT / 2
        made.append(_text(9, middle, y.label, "note middle", f' transform="rotate(-90 9 {middle:g})"'))
    return made


def _said_of(marks: Sequence[tuple[float, str]]) -> list[tuple[str, str, str]]:
    """What the legend says of marks."""
    return [(said, "grey", MARKS[number % len(MARKS)]) for number, (_, said) in enumerate(marks)]


def _marked(marks: Sequence[tuple[float, str]], x: Axis, top: int) -> list[str]:
    """Vertical lines at those places that are within the axis."""
    return [
        f'<path class="l-grey" stroke-dasharray="{dashes}" d="M{_across(x, place)} {top}v{HEIGHT}"/>'
        for (place, _), (_, _, dashes) in zip(marks, _said_of(marks), strict=True)
        if x.low <= place <= x.high
    ]


def _curve(curve: Line, x: Axis, y: Axis, top: int) -> list[str]:
    made, rows = [], [f' data-row="{row}"' for row in curve.rows]
    if curve.band:
        way = [(place, high) for place, _, high in curve.band]
        back = [(place, low) for place, low, _ in curve.band]
        there, home = (_stairs(ends) if curve.step else ends for ends in (way, back))
        made.append(f'<path class="{curve.colour} band" d="{_way([*there, *home[::-1]], x, y, top)}z"/>')
    if curve.dots:
        for number, (place, value) in enumerate(curve.points):
            kind = f"l-{curve.colour} hollow" if curve.hollow else curve.colour
            centre = f'cx="{_across(x, place)}" cy="{_up(y, value, top)}"'
            title, row = f"<title>{_said(curve.titles[number])}</title>", rows[number]
            made.append(f'<circle class="{kind}" {centre} r="4"{row}>{title}</circle>')
    elif curve.points:
        count = len(curve.points)
        some = (
            range(count)
            if count <= POINTS
            else [round(at * (count - 1) / (POINTS - 1)) for at in range(POINTS)]
        )
        points = [curve.points[at] for at in some]
        dashes = f' stroke-dasharray="{curve.dashes}"' if curve.dashes else ""
        d = _way(_stairs(points) if curve.step else points, x, y, top)
        kind = f"l-{curve.colour}{'' if curve.thin else ' thick'}"
        title = f"<title>{_said(curve.name)}</title>"
        made.append(f'<path class="{kind}"{dashes}{"".join(rows)} d="{d}">{title}</path>')
    return made


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value up to the next place."""
    made = [points[0]]
    for place, value in points[1:]:
        made += [(place, made[-1][1]), (place, value)]
    return made


def _way(points: Iterable[tuple[float, float]], x: Axis, y: Axis, top: int) -> str:
    """A path's points; of those in one place only the first."""
    places = [f"{_across(x, place):g} {_up(y, value, top):g}" for place, value in points]
    kept = [place for number, place in enumerate(places) if not number or place != places[number - 1]]
    return f"M{'L'.join(kept)}"


def _round(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Four to nine round numbers between the ends."""
    width = (high - low) / 4 or 1.0
    size = 10.0 ** math.floor(math.log10(width))
    step = max(size * times for times in (1, 2, 5) if size * times <= width)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((number * step, f"{number * step:,.10g}") for number in range(first, last + 1))


def _decades(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Powers of ten between the ends, and where there are few of them also twice and five times these."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1,) if len(powers) > 4 else (1, 2, 5)
    return tuple((one * 10.0**power, f"{one * 10.0**power:.10g}") for power in powers for one in times)
