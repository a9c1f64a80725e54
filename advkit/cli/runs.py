"""``advkit runs``: what was run here, and what it found."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from advkit.cli import completion
from advkit.cli.completion import Words
from advkit.cli.described import DescribedGroup, Option
from advkit.cli.execute import json_option, show
from advkit.core import files, run_list
from advkit.core.errors import ConfigError
from advkit.core.run_list import RUNS, RunRow, Trust, find
from advkit.report.outcome import Outcome, Table

RUN = Words(completion.runs, files=True)


@click.group(
    "runs",
    cls=DescribedGroup,
    example="advkit runs --command attack --trust doubted\nadvkit runs show 12\nadvkit runs rm 12",
    invoke_without_command=True,
)
@click.option("--command", cls=Option, help="Only runs of this command.")
@click.option("--model", cls=Option, help="Only runs whose model's name contains this.")
@click.option("--data", cls=Option, help="Only runs whose data set's name contains this.")
@click.option(
    "--trust",
    cls=Option,
    type=click.Choice(get_args(Trust)),
    help="Only runs whose number the sanity checks trust or doubt.",
)
@json_option
@click.pass_context
def runs(
    context: click.Context,
    command: str | None,
    model: str | None,
    data: str | None,
    trust: Trust | None,
    json_to: Path | None,
) -> None:
    """List the runs in the folder runs, the newest first, each with what it found.

    Wherever a run is named, its number will do.
    """
    if context.invoked_subcommand is not None:
        return
    rows = run_list.runs(command=command, model=model, data=data, trust=trust)
    damaged = [row for row in rows if row.state == "damaged"]
    good = [row for row in rows if row.state != "damaged"]
    said = tuple(f"Left out, because it is damaged: {row.path} ({row.found})." for row in damaged)
    tables = (Table("", ("run", "command", "model", "data", "began", "found"), tuple(map(_row, good))),)
    title = "runs, the newest first" if good else f"No run in {RUNS}/ matches."
    plain = {"runs": [row.to_dict() for row in good], "damaged": [row.to_dict() for row in damaged]}
    show(Outcome(title, said, tables if good else (), result=plain), json_to)


def _row(row: RunRow) -> tuple[str, ...]:
    name = row.path.name if row.number is None else str(row.number)
    doubt = "doubted: " if row.trust == "doubted" else ""
    began = row.started[:16].replace("T", " ")
    return name, row.command, row.model, row.data, began, f"{doubt}{row.found}" or row.state


@runs.command("show", short_help="show one", example="advkit runs show 12\nadvkit runs show runs/second")
@click.argument("run", type=RUN)
@json_option
def show_run(run: str, json_to: Path | None) -> None:
    """Show RUN, a number or a path: what it found, its settings, inputs and files."""
    path = find(run)
    row = run_list.read(path)
    if row.state == "damaged":
        raise ConfigError(
            f"{path} is no run folder, or it is damaged ({row.found}); `advkit runs` lists runs"
        )
    resolved = files.read_json(path / "resolved.json")
    facts = {
        "command": row.command,
        "began": row.started,
        "state": row.state,
        "trust": row.trust,
        "found": row.found,
    }
    tables = (
        Table.of_facts("", "fact", facts),
        Table.of_facts("settings", "key", resolved["config"]),
        Table.of_facts("began with", "what", resolved.get("inputs", {})),
    )
    left = tuple(sorted(file for file in path.iterdir() if not file.name.startswith(".")))
    result = {**row.to_dict(), **resolved, "files": [str(file) for file in left]}
    show(Outcome(str(path), tables=tables, files=left, result=result), json_to)


@runs.command("rm", short_help="remove runs", example="advkit runs rm 12 13")
@click.argument("run", nargs=-1, required=True, type=RUN)
def rm(run: tuple[str, ...]) -> None:
    """Remove the folder of each RUN, a number or a path; if one of them is missing, nothing is removed."""
    from advkit.core import runs as folders

    paths = [find(name) for name in run]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{', '.join(run)} names a run twice; name each run once")
    for path in paths:
        folders.refuse_other(path)
    for path in paths:
        folders.remove(path)
        click.echo(f"removed {path}")
