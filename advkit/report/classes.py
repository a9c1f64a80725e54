"""Accuracies by class: an average may hide that one class is much less robust than the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from advkit.core.stats import accuracy
from advkit.evaluation.result import EvaluationResult
from advkit.report.outcome import Table

SHOWN = 10
"""Classes in a table; of more, the worst."""

Row = TypeVar("Row")


def worst(rows: Sequence[tuple[Any, Row]]) -> tuple[list[Row], str]:
    """All rows where they are few, else those of the lowest figure, and what to say of that in a title."""
    if len(rows) <= SHOWN:
        return [row for _, row in rows], "by class"
    chosen = sorted(range(len(rows)), key=lambda place: rows[place][0])[:SHOWN]
    return [rows[place][1] for place in chosen], f"the worst {SHOWN} of {len(rows)} classes"


def by_class(result: EvaluationResult, names: Sequence[str]) -> Table:
    """Clean and robust accuracy of each class that occurs, with its number of images."""
    statuses: dict[int, list[str]] = {}
    for verdict in result.verdicts:
        statuses.setdefault(verdict.label, []).append(verdict.status)
    rows = []
    for label, found in sorted(statuses.items()):
        n, robust = len(found), found.count("robust") + found.count("certified")
        clean = n - found.count("misclassified")
        name = names[label] if label < len(names) else str(label)
        rows.append((robust / n, (name, f"{n:,}", accuracy(clean, n), accuracy(robust, n))))
    shown, title = worst(rows)
    columns = ("class", "n", "clean accuracy [95 % interval]", "robust accuracy [95 % interval]")
    return Table(title, columns, tuple(shown))
