"""Drawing the outcome of a command on the terminal."""

from __future__ import annotations

import os

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from advkit.report.outcome import Outcome, Table

WIDE = 100_000
"""Columns, where no terminal limits them."""


def console(*, stderr: bool) -> Console:
    """Standard output or error. Away from a terminal a row of a table is one line, unless COLUMNS is set."""
    made = _Console(stderr=stderr)
    wide = not made.is_terminal and "COLUMNS" not in os.environ
    return _Console(stderr=stderr, width=WIDE) if wide else made


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Without it rich ends the process itself, with the exit code of a missed threshold."""
        raise BrokenPipeError


def outcome(console: Console, result: Outcome) -> None:
    """What a command says at its end. The last line is where it left its work, so that scripts find it."""
    wrap = not console.is_terminal
    console.print(Text(result.title, "bold" if result.passed else "bold red"), soft_wrap=wrap)
    for note in result.notes:
        console.print(Text(f"Note: {note}", "yellow"), soft_wrap=wrap)
    for sentence in result.sentences:
        console.print(Text(sentence, "bold" if sentence == result.warning else ""), soft_wrap=wrap)
    for each in result.tables:
        console.print()
        console.print(table(each, console.width))
        if each.note:
            console.print(Text(each.note), soft_wrap=wrap)
    *others, last = result.files or (None,)
    lines = [f"{picture.title}: {picture.path}" for picture in result.pictures if picture.path]
    lines += [str(path) for path in others if path not in {picture.path for picture in result.pictures}]
    for heading, body in (("written", lines), ("next", result.next)):
        if body:
            console.print()
            console.print(Text(heading, "bold"))
            for line in body:
                console.print(Text(f"  {line}"), soft_wrap=True)  # never broken: to be copied
    if last is not None:
        console.print()
        console.print(Text(str(last)), soft_wrap=True)


def table(content: Table, width: int) -> Grid:
    """A table that shrinks to ``width`` columns by wrapping words, never by leaving some out."""
    grid = Grid(
        title=Text(content.title, "bold") if content.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    words = [word for row in content.rows for word in row[0].split()]
    names = min(max(map(len, words), default=0), width * 9 // 20)  # whole where possible: to be copied
    for number, (name, numbers) in enumerate(zip(content.columns, content.numeric, strict=True)):
        grid.add_column(
            Text(name),
            justify="right" if numbers else "left",
            overflow="fold",
            min_width=None if number else names,
        )
    for row in content.rows:
        grid.add_row(*map(Text, row))
    return grid
