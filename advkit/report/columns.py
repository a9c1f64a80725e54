"""Which columns of a table hold numbers, and are read better when they end at the same place."""

from __future__ import annotations

import re

from advkit.report.outcome import Table

_NUMBER = re.compile(r"^[<>~+-]?[\d.,]+([eE][+-]?\d+)?\s*(%|s|ms|min|h)?(\s*[^\w\s].*)?$")


def numeric(table: Table) -> tuple[bool, ...]:
    """For each column whether every cell that says something begins with a number."""
    columns = zip(*table.rows, strict=True) if table.rows else ((),) * len(table.columns)
    return tuple(
        any(cells) and all(_NUMBER.match(cell) for cell in cells if cell not in ("", "-"))
        for cells in columns
    )
