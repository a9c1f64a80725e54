"""``advkit data``: listing and downloading data sets."""

from __future__ import annotations

from pathlib import Path

import click

from advkit.cli.completion import Words, of_kinds
from advkit.cli.described import DescribedGroup
from advkit.cli.execute import json_option, show
from advkit.core.errors import by_size
from advkit.report.outcome import Outcome, Table

_folder = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder of the data sets; by default $ADVKIT_DATA, else ~/.advkit/data.",
)


@click.group("data", cls=DescribedGroup, example="advkit data ls\nadvkit data get mnist")
def data() -> None:
    """The data sets: which of them are on this machine, and downloading the others."""


@data.command(
    "ls",
    short_help="list the data sets and where they are",
    example="advkit data ls\nadvkit data ls --data-dir /data",
)
@_folder
@json_option
def ls(data_dir: Path | None, json_to: Path | None) -> None:
    """List the data sets with their sizes, and where they are."""
    from advkit.data.get import available

    sets = available(data_dir)
    rows = tuple(
        (each.name, by_size(each.shape), *(f"{n:,}" for n in each.sizes), each.where) for each in sets
    )
    table = Table("", ("name", "shape", "training", "test", "where"), rows)
    also = "Your own: folder:PATH (a folder per class), npz:PATH, or package.module:function."
    show(Outcome("data sets", (also,), (table,), result={"data": [each._asdict() for each in sets]}), json_to)


@data.command(
    "get",
    short_help="download data sets",
    example="advkit data get mnist\nadvkit data get cifar10 --data-dir /data",
)
@click.argument("name", nargs=-1, required=True, type=Words(of_kinds("data")))
@_folder
def get(name: tuple[str, ...], data_dir: Path | None) -> None:
    """Download each data set NAME; files that exist are checked and kept."""
    from rich.console import Console

    from advkit.core.bars import Drawn
    from advkit.data.dataset import DATASETS
    from advkit.data.get import download

    for each in name:
        DATASETS.entry(each)  # a misspelt name is reported before the first download
    with Drawn(Console(stderr=True)) as progress:
        for folder in {download(each, data_dir, progress) for each in name}:
            click.echo(folder)
