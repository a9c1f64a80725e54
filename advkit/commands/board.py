"""Show many runs on one page: a table to sort and filter, and charts."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from advkit.core import files, runs
from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.core.errors import MOST, ConfigError, DataError
from advkit.core.run_list import RunRow, below, read
from advkit.report import board as report
from advkit.report import html
from advkit.report.measured import KINDS, Measured
from advkit.report.outcome import Outcome, planned

GROUP = "Robustness"
EXAMPLE = "advkit board runs --out board.html"
OPERANDS = "folder"
BESIDE = "runs"


class Config(StrictModel):
    """Show the finished runs below a folder on one page: a table to sort and filter, and charts.

    Runs of attack, certify, smooth, curve and corrupt are shown, each with a link to its report. The page is
    one file, which needs no network; it is board.html unless --out names another.
    """

    folder: tuple[str, ...] = Field(("runs",), min_length=1)
    """Folders with runs, at any depth."""


def run(config: Config, context: Context) -> Outcome:
    """Writes the page, and says what was left out; the table and the charts are only there."""
    out = context.out or Path("board.html")
    files.refuse_to_replace(out, overwrite=context.overwrite)
    rows = _rows(config)
    if context.dry_run:
        return planned(f"a page of {len(rows):,} runs in {out}", runs=len(rows))
    measured, damaged, others = list[Measured](), list[str](), 0
    for row in rows:
        if row.state == "unfinished" or (row.command not in KINDS and row.state == "finished"):
            others += 1
            continue
        try:
            found = Measured.of(row)
        except DataError as fault:
            damaged.append(str(fault))
            continue
        measured += found if len(found) == 1 else []  # a comparison repeats what its runs say
    if not measured:
        raise ConfigError(
            f"{', '.join(config.folder)} holds no finished run with accuracies; name a folder with runs of "
            f"{', '.join(KINDS)}",
            code="run-not-found",
        )
    said = [f"Left out: {fault}." for fault in damaged[:MOST]]
    said += [f"{len(damaged) - MOST:,} more folders are damaged."] * (len(damaged) > MOST)
    said += [f"{others:,} other runs are not finished or have no accuracies."] * (others > 0)
    page = report.board(measured, said, out)
    command = shlex.join(["advkit", "board", *config.folder, "--out", str(out)])
    html.write(out, page, title=page.title, command=command, environment=runs.environment())
    return replace(page, tables=(), pictures=())


def _rows(config: Config) -> list[RunRow]:
    """Of all run folders, damaged ones too."""
    if missing := [name for name in config.folder if not Path(name).is_dir()]:
        raise ConfigError(f"{missing[0]} is no folder; name one that holds runs", code="run-not-found")
    return [read(path) for name in config.folder for path in below(Path(name))]
