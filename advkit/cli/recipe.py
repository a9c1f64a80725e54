"""``advkit run``, ``cp`` and ``validate``: recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from advkit.cli import execute, options, recipes
from advkit.cli.completion import Words
from advkit.cli.described import Described
from advkit.core import files
from advkit.core.errors import ConfigError, OutputError

RECIPE = Words(recipes.names, files=True)


def _run(recipe: str, **given: Any) -> None:
    command, config = recipes.load(recipe, given["set"])
    execute.execute(command, config, execute.Place.of(given, recipes.find(recipe).read_bytes()))


run = Described(
    "run",
    callback=_run,
    params=[click.Argument(["recipe"], type=RECIPE), *options.common()],
    help="Run RECIPE, a TOML file or the name of a shipped one, with keys of it replaced by --set.",
    short_help="run a recipe",
    example="advkit run gan/digits\nadvkit run my.toml --set steps=500 --out runs/short",
)


@click.command("cp", cls=Described, example="advkit cp gan/digits mine.toml\nadvkit run mine.toml")
@click.argument("recipe", type=RECIPE)
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--overwrite", is_flag=True, help="FILE may be replaced.")
def cp(recipe: str, file: Path | None, overwrite: bool) -> None:
    """Copy RECIPE to FILE, to edit it and run the copy; without FILE, into this folder under its own name."""
    source = recipes.find(recipe)
    target = file or Path(source.name)
    content = source.read_bytes()
    if str(target) == "-":
        click.echo(content, nl=False)
        return
    if target.is_dir():
        target = target / source.name
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; name another file, or add --overwrite")
    files.write_bytes(target, content)
    click.echo(f"next: advkit run {target}\n{target}")


@click.command(
    "validate",
    cls=Described,
    example="advkit validate mine.toml\nadvkit validate gan/digits train/digits-pgd",
)
@click.argument("recipe", nargs=-1, required=True, type=RECIPE)
def validate(recipe: tuple[str, ...]) -> None:
    """Say all that is wrong with each RECIPE, a file or the name of a shipped one, without running it."""
    faults = []
    for where in recipe:
        try:
            command, config = recipes.load(where)
        except ConfigError as fault:
            faults.append(str(fault))
        else:
            keys = len(config.model_fields_set)
            click.echo(f"{where}: valid ({command.name}; {keys} keys set, the others have their defaults)")
    if faults:
        raise ConfigError("\n".join(faults))
