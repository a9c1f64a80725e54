"""The outcome of a command, for the terminal, the report and ``--json`` alike."""

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
    """A PNG file and its caption."""

    title: str
    path: Path
    caption: str = ""


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
    """The same as plain values, for ``--json``."""
    passed: bool = True
    """False when a threshold of the user was not met: exit code 1."""
    warning: str = ""
    """The one of the sentences that must not be overlooked, if any."""


def check_threshold(threshold: float | None, what: str, value: float) -> tuple[bool, list[str]]:
    """Whether a figure reaches the user's threshold, and the sentence about it; none without a threshold."""
    if threshold is None:
        return True, []
    passed = value >= threshold
    return passed, [f"{'PASS' if passed else 'FAIL'}: {what} {value:.4f}, threshold {threshold:.4f}."]
