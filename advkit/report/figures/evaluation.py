"""Charts of evaluations: what each attack leaves, margins, classes, the security curve and minimum norms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from advkit.core.stats import Interval, accuracy, clopper_pearson
from advkit.core.threat import written
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.result import COMPLETE, EvaluationResult
from advkit.evaluation.spatial.result import SpatialResult
from advkit.report.charts import Axis, Bar, Line, bars, histogram, lines, rows_of

BOXES = 20
"""Classes in a picture; of more, those whose images are misclassified first."""
BETWEEN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Shares of a class at the ends of its whiskers and box, and at its median."""
BOUNDS = {"green": "certified", "blue": "robust against these attacks", "red": "misclassified under attack"}
"""What the colours of the first bars are."""
BINS = 40


def first_bars(result: EvaluationResult) -> tuple[Bar, ...]:
    """Clean accuracy, and robust accuracy: with certificates its lower and its upper bound in one bar."""
    n, robust, certified = result.n, result.robust_correct, result.certified_correct
    clean = Bar.of(f"clean accuracy, n = {n:,}", result.clean_correct, n, "grey")
    broken = ((result.clean_correct - robust) / n, "red")
    if certified is None or certified == robust:
        which = ("blue", "at most") if certified is None else ("green", "exactly")
        parts, ends = ((robust / n, which[0]), broken), clopper_pearson(robust, n)
        return clean, Bar(f"robust accuracy, {which[1]}", parts, ends, accuracy(robust, n))
    both = ((certified / n, "green"), ((robust - certified) / n, "blue"), broken)
    ends = Interval(clopper_pearson(certified, n).low, clopper_pearson(robust, n).high)
    low, high, least, most = (f"{100 * share:.1f}" for share in (certified / n, robust / n, *ends))
    name = "robust accuracy, lower to upper bound"
    return clean, Bar(name, both, ends, f"{low} to {high} % [{least}, {most}]")


def waterfall(result: EvaluationResult) -> str:
    """The accuracy after each attack, and what it took away; attacks that had nothing left are not shown."""
    n, left = result.n, result.clean_correct
    rows = [Bar.of("none (clean)", left, n)]
    verified = sum(verdict.attack == COMPLETE for verdict in result.verdicts)
    steps = [(COMPLETE, verified, left - verified)] if verified else []
    steps += [(one.name, one.broken, one.correct_after) for one in result.stages if one.attacked]
    for name, broken, after in steps:
        parts = ((after / n, "blue"), (broken / n, "red"))
        said = f"{-broken:,}, left {accuracy(after, n)}" if broken else accuracy(after, n)
        rows.append(Bar(name, parts, clopper_pearson(after, n), said))
    return bars("accuracy after each attack", rows, legend={"blue": "left", "red": "misclassified by it"})


def classes(names: Sequence[str], counts: Sequence[tuple[int, int, int]], what: str) -> str:
    """Accuracy of classes: for each the number of images, of those classified correctly, and of good ones."""
    rows = [
        Bar(
            f"{name} (n = {n:,})",
            ((good / n, "blue"), ((clean - good) / n, "red")),
            clopper_pearson(good, n),
            accuracy(good, n),
        )
        for name, (n, clean, good) in zip(names, counts, strict=True)
    ]
    return bars(f"{what} accuracy by class", rows, legend={"blue": what, "red": "clean only"})


def margins(result: EvaluationResult) -> str:
    """Largest margins that an attack reached on robust images; at 0 they would be misclassified."""
    found = [verdict.margin for verdict in result.verdicts if verdict.margin is not None]
    low = min([*found, -1e-6])
    edges = [low * (1 - at / BINS) for at in range(BINS + 1)]
    name = "robust images"
    return histogram(
        "margins of robust images", edges, {name: found}, Axis("largest margin reached", low, 0.0)
    )


def security_curve(result: SecurityCurve) -> str:
    """Robust accuracy by eps, as a step curve with its 95 % interval."""
    right = _right_end(result)
    kept = [number for number, eps in enumerate(result.curve.eps) if eps <= right]
    eps = [*(result.curve.eps[at] for at in kept), right]
    left = [result.curve.robust_correct[at] for at in kept]
    left.append(left[-1])
    points = [(place, count / result.n) for place, count in zip(eps, left, strict=True)]
    line = Line("robust accuracy, upper bound", points, step=True, band=rows_of(result.n, left, eps))
    return lines("robust accuracy by eps", [line], _axis(result, "eps"), marks=_marks(result))


def norms(result: SecurityCurve) -> str:
    """A histogram of the minimum norms."""
    right = _right_end(result)
    found = [norm for norm in result.norms if 0 < norm <= right]
    marks = _marks(result)
    if (median := result.median.value) is not None and median <= right:
        said = f"{median * result.parts:.3g}{'/255' if result.parts > 1 else ''}"
        marks.insert(0, (median, f"median of all: {said}"))
    return histogram(
        "minimum norms", _bins(result, right), {"images": found}, _axis(result, "distance"), marks=marks
    )


def not_drawn(result: SecurityCurve) -> str:
    """The images that the histogram of minimum norms leaves out."""
    right = _right_end(result)
    drawn = sum(0 < norm <= right for norm in result.norms)
    others = {
        "misclassified, norm 0": result.n - result.clean_correct,
        "farther": result.clean_correct - result.unbroken - drawn,
        "where nothing was found": result.unbroken,
    }
    said = ", ".join(f"{count:,} {what}" for what, count in others.items() if count)
    return f" Not drawn: {said}." if said else ""


def norms_by_class(result: SecurityCurve) -> str:
    """For each class the median, the quartiles and the range from 5 to 95 % of the minimum norms."""
    middle = [math.inf if row.median.value is None else row.median.value for row in result.classes]
    first = sorted(range(len(middle)), key=lambda at: middle[at])[:BOXES]
    right = _right_end(result)
    rows = []
    for row in (result.classes[at] for at in sorted(first, key=lambda at: result.classes[at].label)):
        pairs = zip(result.images, result.norms, strict=True)
        own = sorted(min(norm, right) for image, norm in pairs if image.label == row.label)
        low, left, median, end, high = (own[math.ceil(share * len(own)) - 1] for share in BETWEEN)
        parts = ((left, ""), (end - left, "blue"))
        rows.append(Bar(f"{row.name} (n = {row.n:,})", parts, (low, high), result.text(row.median), median))
    return bars("minimum norms by class", rows, axis=_axis(result, "distance"))


def sizes(result: SpatialResult) -> str:
    """The accuracy that the grid leaves, by how much of the allowed rotation and shift is used."""
    places = sorted({0.0, 1.0, *(v.grid.size for v in result.verdicts if v.grid is not None)})
    points = [(place, result.left_at(place)) for place in places]
    title = f"turned by up to ±{result.rotation:g}° and shifted by up to ±{result.shift:g} px"
    ticks = tuple((share / 4, f"{25 * share} %") for share in range(5))
    return lines(title, [Line("accuracy left", points, step=True)], Axis("share of that range", ticks=ticks))


def _right_end(result: SecurityCurve) -> float:
    """Beyond nearly all minimum norms and, where that is not much farther, beyond the marks."""
    found = sorted(norm for norm in result.norms if 0 < norm < math.inf)
    end = found[math.ceil(0.99 * len(found)) - 1] if found else result.points[-1].eps
    marks = [mark.eps for mark in result.marks if mark.eps <= 2 * end]
    return 1.06 * max([end, *marks])


def _marks(result: SecurityCurve) -> list[tuple[float, str]]:
    """The usual threat models."""
    return [(mark.eps, f"{mark.said}: {written(mark.eps, result.norm)}") for mark in result.marks[:2]]


def _bins(result: SecurityCurve, right: float) -> list[float]:
    """Edges of about forty bins; those of l0 lie between the whole numbers."""
    if result.norm != "l0":
        return [right * number / BINS for number in range(BINS + 1)]
    width = math.ceil(right / BINS)
    return [0.5 + width * number for number in range(math.ceil(right / width) + 1)]


def _axis(result: SecurityCurve, what: str) -> Axis:
    """Of norms; with ticks in 255ths where the round sizes are such."""
    ticks = [point.eps for point in result.points if "/" in written(point.eps, result.norm)]
    named = ((0.0, "0"), *((eps, written(eps, result.norm)) for eps in ticks)) if len(ticks) > 2 else ()
    return Axis(f"{result.norm} {what}", 0.0, _right_end(result), named)
