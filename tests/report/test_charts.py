"""Charts: what is drawn is where the numbers are."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advkit.core.stats import clopper_pearson
from advkit.report import charts
from advkit.report.charts import Axis, Bar, Line

NASTY = "<script>alert('x')</script> & \"quotes\" \x00\udcfc"
INSIDE = charts.WIDTH - 2


def numbers(path):
    return [float(one) for one in re.findall(r"-?[0-9.]+", path)]


def boxes(svg):
    """(colour, left, top, width, height) of each rectangle."""
    found = ElementTree.fromstring(svg).iter("rect")
    return [
        (one.get("class"), *(float(one.get(key)) for key in ("x", "y", "width", "height"))) for one in found
    ]


def texts(svg):
    return [one.text for one in ElementTree.fromstring(svg).iter("text")]


def test_bars_are_as_long_as_their_figures():
    rows = [Bar.of("a", 3, 12), Bar("b", ((0.25, ""), (0.5, "red"), (0.0, "blue")), None, "said", 0.5)]
    svg = charts.bars("title", rows, legend={"blue": "good"})
    sample, first, second = boxes(svg)
    assert sample[0] == "blue" and "good" in texts(svg)
    assert first[0] == "blue" and first[1::2] == pytest.approx((1, INSIDE / 4), abs=0.1)
    assert second[0] == "red" and second[1::2] == pytest.approx((1 + INSIDE / 4, INSIDE / 2), abs=0.1)
    assert second[2] - first[2] == 34 and first[4] == second[4]
    (whisker,) = re.findall(r'"l-ink" d="([^"]*)"', svg)
    left, _, _, _, _, right, *_ = numbers(whisker)
    low, high = clopper_pearson(3, 12)
    assert (left, right) == pytest.approx((1 + INSIDE * low, 1 + INSIDE * high), abs=0.1)
    (mark,) = re.findall(r'"l-red thick" d="M(\S+)', svg)
    assert float(mark) == pytest.approx(1 + INSIDE / 2, abs=0.1)
    found = ElementTree.fromstring(svg)
    assert found.findtext("title") == "title" and "b: said" in found.findtext("desc")
    assert [name for name in texts(svg) if name.endswith("%")] == ["0 %", "25 %", "50 %", "75 %", "100 %"]


def test_lines_steps_and_bands(drawn):
    points = [(0.0, 0.0), (5.0, 0.5), (10.0, 1.0)]
    x = Axis("x", 0.0, 10.0)
    near = [pytest.approx(point, abs=1e-3) for point in ((0, 0), (0.5, 0.5), (1, 1))]
    assert drawn(charts.lines("", [Line("a", points)], x)) == {"a": near}
    stairs = [pytest.approx(point, abs=1e-3) for point in ((0, 0), (0.5, 0), (0.5, 0.5), (1, 0.5), (1, 1))]
    svg = charts.lines("", [Line("a", points, step=True, band=[(0, 0.1, 0.2), (10, 0.3, 0.4)])], x)
    assert drawn(svg) == {"a": stairs}
    (band,) = re.findall(r'band" d="([^"]*)"', svg)
    flat = numbers(band)
    top = float(re.search(r'"l-line" d="M\S+ (\d+)V', svg)[1])
    heights = [1 - (y - top) / charts.HEIGHT for y in flat[1::2]]
    assert heights == pytest.approx([0.2, 0.2, 0.4, 0.3, 0.1, 0.1], abs=1e-2)
    svg = charts.lines("", [Line("thin", points, thin=True)], x, marks=[(2.5, "here"), (11.0, "beyond")])
    assert "thin" not in texts(svg) and {"here", "beyond"} <= set(texts(svg))
    (mark,) = re.findall(r'"l-grey" stroke-dasharray="[^"]*" d="M(\S+)', svg)
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    assert float(mark) == pytest.approx(left + (right - left) / 4, abs=0.1)


def test_points_have_titles_and_the_row_that_shows_them():
    line = Line("runs", [(0.5, 0.25)], dots=True, titles=["run 3"], rows=[7])
    (circle,) = ElementTree.fromstring(charts.lines("", [line], charts.PERCENT)).iter("circle")
    assert circle.get("data-row") == "7" and circle.findtext("title") == "run 3"
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    assert float(circle.get("cx")) == (left + right) / 2


def test_long_lines_keep_their_ends(drawn):
    points = [(at, at / 9999) for at in range(10_000)]
    svg = charts.lines("", [Line("a", points)], Axis("", 0, 9999))
    (line,) = drawn(svg).values()
    assert line[0] == pytest.approx((0, 0), abs=1e-3) and line[-1] == pytest.approx((1, 1), abs=1e-3)
    assert charts.POINTS // 2 < len(line) <= charts.POINTS and len(svg) < 12_000


def test_a_histogram_stacks_its_groups():
    groups = {"a": [0.1, 0.2, 0.6], "b": [0.6, 0.7, -3.0, 9.0]}
    svg = charts.histogram("", [0.0, 0.5, 1.0], groups, Axis("x"), colours=("blue", "red"))
    *_, first, second, third, fourth = boxes(svg)
    assert [box[0] for box in (first, second, third, fourth)] == ["blue", "blue", "red", "red"]
    unit = charts.HEIGHT / (1.05 * 4)
    assert [box[4] for box in (first, second, third, fourth)] == pytest.approx(
        [2 * unit, unit, unit, 3 * unit], abs=0.2
    )
    assert third[2] + third[4] == pytest.approx(first[2], abs=0.2)
    assert fourth[2] + fourth[4] == pytest.approx(second[2], abs=0.2)
    assert {"a (3)", "b (4)"} <= set(texts(svg))
    assert "svg" in charts.histogram("", [0.0, 1.0], {"none": []}, Axis("x"))


@given(st.lists(st.floats(-2, 2), max_size=20))
def test_bins_hold_each_value_once(values):
    edges = [-1.0, -0.5, 0.0, 0.5, 1.0]
    expected = [0] * 4
    for value in values:
        inside = [at for at in range(4) if edges[at] <= value < edges[at + 1]]
        expected[inside[0] if inside else 0 if value < 0 else 3] += 1
    assert charts.binned(values, edges) == expected


def test_a_matrix_shades_by_row():
    svg = charts.matrix("t", ["cat", "dog"], [[9, 1], [0, 4]], "true", "predicted")
    assert [box[0] for box in boxes(svg)] == ["blue", "red", "blue"]
    assert re.findall(r'opacity="([^"]*)"', svg) == ["0.57", "0.17", "0.62"]
    assert [text for text in texts(svg) if text.isdigit()] == ["9", "1", "4"]
    assert ElementTree.fromstring(svg).findtext("desc") == "1 of cat as dog"
    (_, x, y, *_), (_, right, same, *_), (_, below, down, *_) = boxes(svg)
    assert right > x and same == y and below == right and down > y
    placed = {
        one.text: (float(one.get("x")), float(one.get("y")))
        for one in ElementTree.fromstring(svg).iter("text")
    }
    for count, row, (_, left, _, width, height) in zip("914", ("cat", "cat", "dog"), boxes(svg), strict=True):
        assert width == height == right - x - 1  # a white line between cells
        assert placed[count] == (pytest.approx(left + (right - x) / 2, abs=0.1), placed[row][1])


@given(
    st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda low: round(low, 3)),
    st.floats(1e-3, 1e6).map(lambda width: round(width, 3)),
)
def test_ticks_are_round_and_within_the_axis(low, width):
    axis = Axis("", low, low + width)
    places = [place for place, _ in axis.named]
    assert 3 <= len(places) <= 11 and all(low <= place <= low + width for place in places)
    steps = [b - a for a, b in itertools.pairwise(places)]
    digit = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert any(digit == pytest.approx(round_, rel=1e-3) for round_ in (1, 2, 5, 10))


def test_places_on_an_axis():
    assert [Axis("", 2.0, 6.0).at(value) for value in (1.0, 2.0, 3.0, 6.0, 7.0)] == [0, 0, 0.25, 1, 1]
    assert Axis("", 1.0, 100.0, log=True).at(10.0) == pytest.approx(0.5)
    assert Axis("", 3.0, 3.0).at(3.0) == 0
    assert [name for _, name in Axis("", 0.5, 20.0, log=True).named] == ["0.5", "1", "2", "5", "10", "20"]
    assert [name for _, name in Axis("", 1e-6, 1.0, log=True).named][-1] == "1"
    assert len(Axis("", 1e-6, 1.0, log=True).named) == 7


def test_an_interval_for_a_band_at_few_places_with_both_ends():
    places = [at / 999 for at in range(1000)]
    band = charts.rows_of(1000, range(1000, 0, -1), places)
    assert band[0] == (0.0, *clopper_pearson(1000, 1000)) and band[-1] == (1.0, *clopper_pearson(1, 1000))
    assert len(band) == charts.BAND
    assert charts.rows_of(9, [5], [0.5]) == [(0.5, *clopper_pearson(5, 9))]


def test_what_names_say_is_text(drawn):
    rows = [Bar(NASTY, ((0.5, "blue"),), None, NASTY)]
    for svg in (
        charts.bars(NASTY, rows, legend={"red": NASTY}),
        charts.lines(NASTY, [Line(NASTY, [(0, 0)])], Axis(NASTY), marks=[(0.5, NASTY)]),
        charts.histogram(NASTY, [0, 1], {NASTY: [0.5]}, Axis(NASTY)),
        charts.matrix(NASTY, [NASTY], [[1]], NASTY, NASTY),
    ):
        assert not list(ElementTree.fromstring(svg).iter("script"))
        file = ElementTree.fromstring(charts.alone(svg).encode())
        assert file.tag == "{http://www.w3.org/2000/svg}svg" and file.get("role") == "img"


def test_colours_can_be_told_from_the_paper():
    """Of WCAG 2: 4.5 : 1 for text, 3 : 1 for what is drawn."""

    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colours in (charts.LIGHT, charts.DARK):
        for name in ("ink", "quiet", *charts.SERIES):
            low, high = sorted((light(colours[name]), light(colours["paper"])))
            assert (high + 0.05) / (low + 0.05) >= (4.5 if name in ("ink", "quiet") else 3), name
