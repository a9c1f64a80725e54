"""Clean and robust errors of classifiers, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advkit.core.stats import clopper_pearson
from advkit.report.outcome import Table


def table(tested: Mapping[str, Mapping[str, Any]], name: str, attack: Mapping[str, Any] | None) -> Table:
    """A row for each classifier: errors out of n with their exact 95 % intervals.

    Args:
        tested: of `errors`, by what was trained.
        name: of the test images.
        attack: of `facts`.
    """
    columns, rows = ["", "clean error [95 %]", "wrong", "n"], []
    if attack is not None:
        columns += [f"error under PGD-{attack['parameters']['steps']}", "n"]
    for how, row in tested.items():
        cells = [how, _share(row["clean"], row["n"]), f"{row['clean']:,}", f"{row['n']:,}"]
        if attack is not None:
            cells += [_share(row["robust"], row["attacked"]), f"{row['attacked']:,}"]
        rows.append(tuple(cells))
    threatened = "" if attack is None else f", {attack['norm']} eps {attack['eps']:.4g}"
    return Table(f"{name} test images{threatened}", tuple(columns), tuple(rows))


def _share(wrong: int, n: int) -> str:
    low, high = clopper_pearson(wrong, n)
    return f"{100 * wrong / n:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
