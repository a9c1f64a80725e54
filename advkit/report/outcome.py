"""The outcome of a command, for the terminal, the report and ``--json`` alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advkit.core import distributed, files
from advkit.core.config import StrictModel
from advkit.core.errors import OutputError
from advkit.core.stats import accuracy
from advkit.core.stored import StoredResult
from advkit.models.card import DataFacts, ModelCard
from advkit.report import charts
from advkit.report.charts import Bar

LOG = logging.getLogger(__name__)

_NUMBER = re.compile(r"^[<>~+-]?[\d.,]+([eE][+-]?\d+)?\s*(%|s|ms|min|h)?(\s*[^\w\s].*)?$")


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """What is said below it."""
    links: tuple[str, ...] = ()
    """Where the first cell of each row leads on a page; empty: nowhere."""
    filters: tuple[str, ...] = ()
    """Columns by which a page filters the rows, which can then be sorted, too."""

    @classmethod
    def of_facts(cls, title: str, what: str, values: Mapping[str, object]) -> Table:
        """A row for each value that says something, under its name; ``what`` such a name is."""
        said = ((key, str(value)) for key, value in values.items() if value not in (None, "", [], {}))
        return cls(title, (what, "value"), tuple(said))

    @classmethod
    def of_shares(cls, title: str, what: str, n: int, counts: Mapping[str, int]) -> Table:
        """A row for each count of ``n`` images, with its share and the exact interval of that."""
        rows = ((name, f"{count:,}", accuracy(count, n)) for name, count in counts.items())
        return cls(title, (what, "images", "share [95 % interval]"), tuple(rows))

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether every cell that says something begins with a number: aligned right."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.columns)
        return tuple(
            any(cells) and all(_NUMBER.match(cell) for cell in cells if cell not in ("", "-"))
            for cells in columns
        )


@dataclass(frozen=True)
class Picture:
    """A picture and its caption: a file, or a chart, which may be in a file, too."""

    title: str
    path: Path | None
    caption: str = ""
    svg: str = ""
    """Of a chart (`advkit.report.charts`)."""

    @classmethod
    def chart(cls, title: str, svg: str, caption: str = "", path: Path | None = None) -> Picture:
        """A chart; of several processes the first writes its file. One that cannot be written is left out
        with a logged warning: the result is there, whatever happens to its pictures."""
        if path is not None and distributed.rank() == 0:
            try:
                files.write_text(path, charts.alone(svg))
            except OutputError as fault:
                LOG.warning("%s is missing: %s", path, fault)
        return cls(title, path, caption, svg)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command; the terminal and the HTML report show the same object."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    files: tuple[Path, ...] = ()
    """What was written, the run folder last."""
    next: tuple[str, ...] = ()
    """Commands worth running now."""
    result: dict[str, Any] = field(default_factory=dict)
    """The same as plain values, for ``--json``; by default those of ``stored``."""
    passed: bool = True
    """False when a threshold of the user was not met: exit code 1."""
    judged: bool = False
    """Whether the user set a threshold."""
    warning: str = ""
    """The one of the sentences that must not be overlooked, if any."""
    stored: StoredResult | None = None
    """What is in ``result.json``."""
    notes: tuple[str, ...] = ()
    """What was assumed or left out, which people read before the numbers; by default that of ``stored``."""
    bars: tuple[Bar, ...] = ()
    """The figures that matter most, for the first screen of the report."""
    legend: dict[str, str] = field(default_factory=dict)
    """What the colours of the bars are."""

    def __post_init__(self) -> None:
        if self.stored is not None:
            object.__setattr__(self, "result", self.stored.as_values())
            notes = self.notes or (*getattr(self.stored, "notes", ()), *_of_the_data(self.stored))
            object.__setattr__(self, "notes", tuple(dict.fromkeys(notes)))

    @property
    def badges(self) -> tuple[tuple[bool, str], ...]:
        """What decides, in a word or two each, and whether it is good."""
        trusted = getattr(self.stored, "trusted", None)
        said = () if trusted is None else ((bool(trusted), "trusted" if trusted else "doubted"),)
        met = (self.passed, "threshold met" if self.passed else "threshold not met")
        return (*said, *([met] * (self.judged or not self.passed)))


def _of_the_data(result: StrictModel) -> Iterator[str]:
    """What is to know of the images in a result, and in its parts."""
    for _, part in result:
        if isinstance(part, DataFacts):
            yield from map(str, part.notes)
        elif isinstance(part, StrictModel) and not isinstance(part, ModelCard):
            yield from _of_the_data(part)


def planned(*sentences: str, table: Table | None = None, **result: Any) -> Outcome:
    """The outcome of a dry run."""
    return Outcome("what would be done", sentences, (table,) if table else (), result=result)


def partial(status: str, n: int, among: str = "") -> list[str]:
    """The sentence that only a part of the split was used; none if all of it was."""
    return [f"Partial: {n} images only{among}."] if status == "partial" else []


def check_threshold(threshold: float | None, what: str, value: float) -> tuple[bool, list[str]]:
    """Whether a figure reaches the user's threshold, and the sentence about it; none without a threshold."""
    if threshold is None:
        return True, []
    passed = value >= threshold
    return passed, [f"{'PASS' if passed else 'FAIL'}: {what} {value:.4f}, threshold {threshold:.4f}."]
