"""What a command says at its end, for the terminal, the report and ``--json`` alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file and what one sees in it."""

    title: str
    path: Path
    caption: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a command says at its end; drawn on the terminal and rendered as HTML from the same object."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    files: tuple[Path, ...] = ()
    """What was written, the run folder last."""
    next: tuple[str, ...] = ()
    """Commands worth running now."""
    result: dict[str, Any] = field(default_factory=dict)
    """The same as plain values, for ``--json``."""
    passed: bool = True
    """False when a bar that the user set was missed: exit code 1."""
    warning: str = ""
    """That of the sentences which must not be overlooked, if any."""


def check_threshold(bar: float | None, what: str, value: float) -> tuple[bool, list[str]]:
    """Whether a figure reaches what the user asked for, and the sentence about it; none where nothing was."""
    if bar is None:
        return True, []
    passed = value >= bar
    return passed, [f"{'PASS' if passed else 'FAIL'}: {what} {value:.4f}, {bar:.4f} was asked for."]
