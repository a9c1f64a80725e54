"""Running a command: progress and outcome drawn, ``--json`` and ``report.html`` written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from advkit.cli import faults
from advkit.commands import Command
from advkit.core import distributed, files, memory, runs
from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.core.errors import ConfigError, OutputError, readable
from advkit.core.named import without_code
from advkit.report.outcome import Outcome

json_option = click.option(
    "--json",
    "json_to",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Also write it as JSON; - for standard output.",
)
"""For commands that only list or show."""


@dataclass(frozen=True)
class Place:
    """What the flags of every command said."""

    context: Context
    json: Path | None = None
    recipe: bytes | None = None
    """The recipe as it was given, to be kept in the run folder."""

    @classmethod
    def of(cls, given: Mapping[str, Any], recipe: bytes | None = None) -> Place:
        """From the values of `advkit.cli.options.common`."""
        names = ("out", "resume", "overwrite", "device", "data_dir", "dry_run")
        return cls(Context(**{name: given[name] for name in names}), given["json"], recipe)


def execute(command: Command, config: StrictModel, place: Place) -> Outcome:
    """Does the work, draws it and writes what was asked for.

    Raises:
        OutputError: ``--json`` names something that must not be replaced; said before the work begins.
        click.exceptions.Exit: a bar that the user set was missed.
    """
    from rich.console import Console

    from advkit.core.bars import Drawn

    if distributed.world() > 1 and not command.distributed:
        raise ConfigError(f"advkit {command.name} works in one process; start it without torchrun")
    if place.json is not None:
        _refuse_to_replace(place.json, place.context.overwrite)
    with Drawn(Console(stderr=True)) as progress:
        try:
            with memory.kept(), without_code(place.context.dry_run):
                outcome = command.run(config, replace(place.context, progress=progress))
        except KeyboardInterrupt as stop:
            stop.add_note("the same command goes on from here")
            raise
    if distributed.rank() == 0:
        outcome = replace(outcome, next=tuple(map(_copyable, outcome.next)))
        if outcome.files and outcome.files[-1].is_dir():
            outcome = _with_report(outcome, place.recipe)
        show(outcome, place.json)
    if not outcome.passed:
        raise click.exceptions.Exit(faults.MISSED)
    return outcome


def show(outcome: Outcome, json_to: Path | None = None) -> None:
    """Draws an outcome, and writes its result as JSON; with ``-`` standard output holds nothing else."""
    from advkit.cli import draw

    if json_to is not None:
        text = files.json_text(outcome.result, indent=2) + "\n"
        if str(json_to) == "-":
            sys.stdout.write(text)
        else:
            files.write_text(json_to, text)
    draw.outcome(draw.console(stderr=str(json_to) == "-"), outcome)


def _with_report(outcome: Outcome, recipe: bytes | None) -> Outcome:
    """Writes ``report.html``, and ``recipe.toml`` where there was one, into the run folder."""
    from advkit.report import html

    *others, folder = outcome.files
    if recipe is not None:
        files.write_bytes(folder / "recipe.toml", recipe)
    command = _copyable(shlex.join(["advkit", *click.get_current_context().find_root().obj]))
    path = folder / "report.html"
    try:
        html.write(path, outcome, title=outcome.title, command=command, environment=runs.environment())
    except Exception as fault:  # the result is there, whatever happens to its report
        missing = f"{path} is missing: it could not be written ({type(fault).__name__}: {fault})."
        return replace(outcome, sentences=(*outcome.sentences, missing))
    return replace(outcome, files=(*others, path, folder))


def _copyable(line: str) -> str:
    """A command line in which names that are no text are written as a shell reads them."""
    if readable(line) == line:
        return line
    return " ".join(
        shlex.quote(word) if readable(word) == word else f"$'{_bytes(word)}'" for word in shlex.split(line)
    )


def _bytes(word: str) -> str:
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return plain.encode("utf-8", "surrogateescape").decode("ascii", "backslashreplace")


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    """A file that is no JSON was not written by us; better now than after an hour's work."""
    if str(path) == "-":
        return
    if path.is_dir():
        raise OutputError(f"--json {path} is a folder; name a file")
    if path.is_file() and not files.is_stream(path) and not overwrite:
        try:
            files.parsed(path.read_bytes() or "{}")
        except ValueError as error:
            raise OutputError(
                f"--json {path} exists and is not JSON; name another file, or add --overwrite"
            ) from error
