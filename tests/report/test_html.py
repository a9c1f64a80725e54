from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from advkit.core.errors import OutputError
from advkit.core.images import png_bytes
from advkit.core.stored import StoredResult
from advkit.report import html
from advkit.report.charts import Bar, alone, bars
from advkit.report.outcome import Outcome, Picture, Table

NASTY = "<script>alert('x')</script> & \"quotes\""


class Page(HTMLParser):
    """Checks that tags are closed, and keeps what there is."""

    VOID = frozenset({"meta", "img", "link", "br"})
    ENDED = frozenset({"td", "th"})
    """By the next of them, or by the end of the row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID | self.ENDED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.ENDED or self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def _render(*outcomes: Outcome, title: str = "A report", command: str = "advkit attack") -> str:
    return html.render(outcomes, title=title, command=command, environment={"torch": NASTY})


def test_commands_between_backticks_are_code():
    page = _render(Outcome("A report", ("See `advkit ls <NAME>`, and `advkit show`.", "one ` alone")))
    assert "See <code>advkit ls &lt;NAME&gt;</code>, and <code>advkit show</code>." in page
    assert "one ` alone" in page


def test_everything_is_escaped():
    outcome = Outcome(
        NASTY,
        (NASTY,),
        (Table(NASTY, (NASTY,), ((NASTY,),)),),
        (Picture(NASTY, Path("/nowhere/<b>.png"), NASTY),),
        (Path("<i>"),),
        (NASTY,),
    )
    page = Page(_render(outcome, title=NASTY, command=NASTY))
    assert {"script", "b>", "i"}.isdisjoint(tag for tag, _ in page.tags)
    assert sum(NASTY in words for words in page.words) >= 9


def test_what_was_assumed_stands_above_the_numbers():
    page = _render(Outcome("a report", ("clean accuracy 90 %",), notes=("<pixels> were assumed",)))
    assert page.index("&lt;pixels&gt; were assumed") < page.index("clean accuracy 90 %")


def test_it_needs_nothing_from_outside(tmp_path):

    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(torch.zeros(1, 8, 8)))
    page = Page(_render(Outcome("a", pictures=(Picture("grid", path, "what it shows"),))))
    sources = [attributes.get("src") for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,")
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not any("href" in attributes for _, attributes in page.tags)
    assert "what it shows" in "".join(page.words)


def test_a_picture_that_is_gone_is_said():
    assert "The file x/gone.png is gone." in _render(
        Outcome("a", pictures=(Picture("g", Path("x/gone.png")),))
    )


def test_sections_and_a_missed_bar():
    text = _render(Outcome("First", ("one",)), Outcome("Second", ("two",), passed=False))
    assert text.index("<h2>First</h2>") < text.index("<h2>Second</h2>")
    assert text.count('class="badge missed"') == 1
    assert "<h2>" not in _render(Outcome("A report", ("one",)))


def test_numbers_end_at_the_same_place():
    table = Table(
        "",
        ("attack", "accuracy", "interval", "n", "verdict", "empty"),
        (
            ("pgd", "4.4 %", "2.6 - 7.1", "", "ok", ""),
            ("apgd-ce", "-1e-5", "[1, 2]", "1,024", "8 doubts", ""),
        ),
    )
    assert table.numeric == (False, True, False, True, False, False)
    assert Table("", ("a", "b"), ()).numeric == (False, False)
    other = Table("", ("n",), (("1",),))
    right = re.findall(
        r"#t(\d)-(\d) \S+ \S+:nth-child\((\d)\) { text-align: right",
        _render(Outcome("a", tables=(other, table)), Outcome("b", tables=(other,))),
    )
    assert right == [("1", "1", "1"), ("1", "2", "2"), ("1", "2", "4"), ("2", "1", "1")]


def test_only_a_table_with_filters_has_a_script_and_only_the_first_cell_leads_on():
    cells = (("a", "b"),)
    linked = _render(Outcome("a", tables=(Table("", ("x", "y"), cells, links=("a b.html",)),)))
    assert "<script>" not in linked and '<td><a href="a b.html">a</a><td>b' in linked
    filtered = _render(Outcome("a", tables=(Table("", ("x", "y"), cells, filters=("y",)),)))
    assert filtered.count("<script>") == 1 and '<th>x<th class="filter">y' in filtered


def test_write(tmp_path):
    html.write(tmp_path / "r.html", Outcome("a"), title="t", command="c", environment={})
    assert Page((tmp_path / "r.html").read_text()).tags[0][0] == "html"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        html.write(tmp_path / "file" / "r.html", Outcome("a"), title="t", command="c", environment={})


def test_pictures_are_what_they_are_said_to_be(tmp_path):
    files = {"a.png": png_bytes(torch.zeros(1, 2, 2)), "b.gif": b"GIF89a"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pictures = tuple(Picture(name, tmp_path / name) for name in files)
    page = Page(_render(Outcome("pictures", pictures=pictures)))
    sources = [facts["src"] for tag, facts in page.tags if tag == "img"]
    assert [source.partition(";")[0] for source in sources] == ["data:image/png", "data:image/gif"]


@pytest.mark.parametrize(
    ("passed", "judged", "trusted", "badges"),
    [
        (True, False, None, ()),
        (False, False, None, ((False, "threshold not met"),)),
        (True, True, True, ((True, "trusted"), (True, "threshold met"))),
        (False, True, False, ((False, "doubted"), (False, "threshold not met"))),
    ],
)
def test_badges_tell_the_verdict(passed, judged, trusted, badges):
    class Stored(StoredResult):
        @property
        def trusted(self):
            return trusted

    outcome = Outcome("a", passed=passed, judged=judged, stored=Stored())
    assert outcome.badges == badges
    page = _render(outcome)
    found = re.findall(r'"badge (\w+)">([\w ]+)<', page)
    assert tuple((kind == "good", word) for kind, word in found) == badges


def test_the_first_screen_has_the_verdict_the_bars_and_what_to_do():
    page = _render(
        Outcome(
            "a",
            ("Verdict.",),
            (Table("", ("its </style>",), (("cell",),), "said below"),),
            next=("advkit attack",),
            bars=(Bar.of("clean", 1, 2),),
            legend={"red": "lost"},
            pictures=(Picture.chart("chart", bars("inside", ()), "caption"),),
        )
    )
    order = ("Verdict.", ">clean<", "<pre>advkit attack", ">inside<", ">cell<")
    places = [page.index(words) for words in order]
    assert places == sorted(places) and page.index("said below") > places[-1] and ">lost<" in page
    assert r'#t1-1 td:nth-child(1) { --name: "its \3c \2f style\3e "; }' in page  # for a narrow screen
    assert page.count("</style>") == 1 and '<table id="t1-1">' in page


def test_a_chart_is_a_file_too_unless_it_cannot_be_written(tmp_path, caplog):
    made = Picture.chart("chart", bars("inside", ()), "", tmp_path / "a.svg")
    assert made.path.read_text(encoding="utf-8") == alone(made.svg)
    with caplog.at_level(logging.WARNING):
        lost = Picture.chart("chart", made.svg, "", made.path / "lost.svg")
    assert str(lost.path) in caplog.text and lost.svg == made.svg
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]
