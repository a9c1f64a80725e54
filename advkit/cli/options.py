"""The options of a command: a flag for each field of its configuration, and those that all commands have."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from advkit.cli import completion
from advkit.cli.described import Described, Operands, Option
from advkit.commands import Command
from advkit.core import config
from advkit.core.errors import ConfigError


def command(described: Command) -> click.Command:
    """The click command of ``described``."""

    def call(**given: Any) -> None:
        from advkit.cli import execute

        values = _chosen(described, given)
        try:
            settings = config.validate(described.config, values, where=f"advkit {described.name}")
        except ConfigError as fault:
            raise ConfigError(f"{fault}; `advkit {described.name} --help` lists the options") from fault
        execute.execute(described, settings, execute.Place.of(given))

    return Described(
        described.name,
        callback=call,
        params=[*_flags(described), *common()],
        help=described.config.__doc__ or described.summary,
        short_help=described.summary,
        example=described.example,
        notes=[
            (f"{name}.KEY=VALUE", about(field))
            for name, field in described.config.model_fields.items()
            if _only_inner(field.annotation)
        ],
    )


def _chosen(described: Command, given: Mapping[str, Any]) -> dict[str, Any]:
    """Only the options that were given; a list arrives as one text."""
    values: dict[str, Any] = {}
    for name, field in described.config.model_fields.items():
        value = given.get(name)
        if value not in (None, ()):
            values[name] = _parts(value) if isinstance(value, str) and _is_list(field.annotation) else value
        if given.get(f"no_{name}"):
            values[name] = False
    if operands := given.get("operands"):
        values[described.operands] = [*values.get(described.operands, ()), *operands]
    for assignment in given["set"]:
        config.assign(values, assignment)
    return values


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def common() -> list[click.Parameter]:
    """The flags for where and how to run; none of them changes what is computed."""

    def option(*declarations: str, **settings: Any) -> Option:
        return Option(declarations, group="Where and how to work", **settings)

    path = click.Path(path_type=Path)
    return [
        option(
            "--out",
            type=completion.RunPath(path_type=Path),
            help="Run folder, or the file to write; by default the next folder under runs/.",
        ),
        option(
            "--json",
            type=click.Path(path_type=Path, allow_dash=True),
            help="Also write the result as JSON; - for standard output.",
        ),
        option("--resume", is_flag=True, help="Resume an interrupted run; it is an error if there is none."),
        option("--overwrite", is_flag=True, help="An output file that exists may be replaced."),
        option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.  [default: auto]"),
        option(
            "--data-dir",
            type=path,
            help="Folder of the data sets; by default $ADVKIT_DATA, else ~/.advkit/data.",
        ),
        option("--dry-run", is_flag=True, help="Print the plan and its cost, and stop."),
        option(
            "--set",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set any key of the configuration, also an inner one (A.B=VALUE); may be given again.",
        ),
    ]


def _flags(described: Command) -> list[click.Parameter]:
    flags: list[click.Parameter] = []
    for name, field in described.config.model_fields.items():
        flag = "--" + name.replace("_", "-")
        if name == described.operands:
            kind = completion.of_field(name, field, (), several=False)
            flags.append(Operands(name, f"The same as {flag}.", kind))
        if (members := _members(field.annotation)) == [bool]:
            flags.append(Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=_help(field)))
        elif bool in members:  # alone the flag says yes, and it may have a word instead
            _, choices = _metavar(Union[*(member for member in members if member is not bool)])
            kind = completion.of_field(name, field, choices, several=False)
            metavar, about_it = f"[{'|'.join(choices)}]", _help(field)
            word = Option(
                [flag, name], is_flag=False, flag_value="yes", type=kind, metavar=metavar, help=about_it
            )
            flags.append(word)
            flags.append(Option([f"--no-{flag[2:]}", f"no_{name}"], is_flag=True, hidden=True))
        elif not _only_inner(field.annotation):
            metavar, choices = _metavar(field.annotation)
            kind = completion.of_field(name, field, choices, several=_is_list(field.annotation))
            flags.append(Option([flag, name], type=kind, metavar=metavar, help=_help(field)))
    return flags


def about(field: FieldInfo) -> str:
    """What a field's docstring says, on one line."""
    return " ".join((field.description or "").split())


def default(field: FieldInfo) -> str:
    """A field's default as one would type it; empty for none."""
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None or value == {} else str(value)


def _help(field: FieldInfo) -> str:
    hint = "required" if field.is_required() else f"default: {default(field)}" if default(field) else ""
    return f"{about(field)}  [{hint}]" if hint else about(field)


def _members(annotation: Any) -> list[Any]:
    """The types that a value may have, without None and without pydantic's extras."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [] if annotation is type(None) else [annotation]


def _is_list(annotation: Any) -> bool:
    return any(get_origin(member) in (tuple, list) for member in _members(annotation))


def _only_inner(annotation: Any) -> bool:
    """Groups of keys, for which --set is the way."""
    return all(
        get_origin(member) in (dict, Mapping)
        or member is dict
        or (isinstance(member, type) and issubclass(member, BaseModel))
        for member in _members(annotation)
    )


_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def _metavar(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """The name of the value in help, and the known values."""
    names: list[str] = []
    choices: list[str] = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            choices += map(str, get_args(member))
            names += map(str, get_args(member))
        elif get_origin(member) in (tuple, list):
            name, known = _metavar(get_args(member)[0])
            choices += known
            names.append(f"{name},...")
        else:
            names.append(_METAVARS.get(member, "VALUE"))
    return "|".join(names), tuple(choices)
