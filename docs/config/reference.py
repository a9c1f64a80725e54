"""The reference, made from the registries while the site is built: nothing of it is kept in the repository.

A hook of MkDocs. Every kind of thing that ``advkit ls`` knows gets a page, so a new registry needs no
change here, and a newly registered thing appears by itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from advkit.attacks.attack import ATTACKS
from advkit.cli import recipes
from advkit.cli.app import app, sections
from advkit.cli.ls import KINDS, Row
from advkit.cli.options import about, default
from advkit.core.config import StrictModel


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the empty section of the navigation."""
    section = next(part for part in config.nav if "Reference" in part)
    section["Reference"] = [{_title(kind): f"reference/{kind}.md"} for kind in KINDS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for kind in KINDS:
        files.append(File.generated(config, f"reference/{kind}.md", content=page(kind)))
    return files


def page(kind: str) -> str:
    """The page of one kind, as Markdown."""
    if kind == "commands":
        body = _commands()
    elif kind == "recipes":
        body = (line for name in recipes.names() for line in _recipe(name))
    else:
        body = (line for row in KINDS[kind].rows() for line in _thing(kind, row))
    if kind == "attacks":
        body = (*body, *_families())
    summary = f"{KINDS[kind].summary[0].upper()}{KINDS[kind].summary[1:]}."
    listed = f"On the command line: `advkit ls {kind}`."
    return "\n".join([f"# {_title(kind)}", "", _code_flags(summary), listed, "", *body, ""])


def _families() -> Iterator[str]:
    """Attacks that somebody else names, too many to list here."""
    rows = [(f"`{prefix}:NAME`", _text(said)) for prefix, said in ATTACKS.families.items()]
    yield from ("## Families", "", *_table(("attack", "meaning"), rows))


def _title(kind: str) -> str:
    return kind.replace("-", " ").capitalize().replace("Gan ", "GAN ").replace("Art ", "ART ")


def _code_flags(summary: str) -> str:
    """What follows the colon is to be typed."""
    said, colon, typed = summary.removesuffix(".").partition(": ")
    return f"{said}: `{typed}`." if colon else summary


def _thing(kind: str, row: Row) -> Iterator[str]:
    yield from (f"## {row.name}", "", f"{row.summary[0].upper()}{row.summary[1:]}.", "")
    if row.source:
        yield from (f"Source: {row.source}.", "")
    if row.entry is None:
        return
    facts = {key: value for key, value in row.entry.facts.items() if key in ("shape", "sizes", "threat")}
    if facts:
        shape, (train, test) = "x".join(map(str, facts["shape"])), facts["sizes"]
        yield from (f"Images: {shape}, {train:,} for training and {test:,} for testing.", "")
        yield from (f"Default threat model: {facts['threat']}.", "")
    yield from _prose(row.entry.thing.__doc__)
    if norms := getattr(row.entry.thing, "norms", None):
        yield from (f"Norms: {', '.join(norms)}.", "")
    yield from _parameters(getattr(row.entry.thing, "Config", StrictModel))


def _prose(docstring: str | None) -> Iterator[str]:
    """A docstring up to its list of arguments."""
    parts = re.split(r"\n(?:Args|Returns|Raises):\n", inspect.cleandoc(docstring or ""))[0]
    yield from (*_text(parts).replace("``", "`").splitlines(), "")


def _parameters(settings: type[StrictModel]) -> Iterator[str]:
    """A table of names, defaults and meanings."""
    rows = [
        (f"`{name}`", _cell(default(field)), _text(about(field)))
        for name, field in settings.model_fields.items()
    ]
    if rows:
        yield from _table(("parameter", "default", "meaning"), rows)


def _commands() -> Iterator[str]:
    for _, commands in sections():
        for name in commands:
            command = app.get_command(click.Context(app), name)
            assert command is not None
            yield from _command(command, f"advkit {name}")
            if isinstance(command, click.Group):
                for inner in command.commands.values():
                    yield from _command(inner, f"advkit {name} {inner.name}")


def _command(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    level = "##" if path.count(" ") == 1 else "###"
    usage = f"{path} {' '.join(command.collect_usage_pieces(context))}"
    yield from (f"{level} {path}", "", *_prose(command.help))
    yield from ("```text", usage, "```", "")
    rows = [
        (f"`{declared}`", _text(meaning))
        for parameter in command.params
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)) is not None
        for declared, meaning in [record]
    ]
    rows += [(f"`--set {key}`", _text(meaning)) for key, meaning in getattr(command, "notes", ())]
    if rows:
        yield from _table(("option", "meaning"), rows)
    yield from ("Example:", "", "```bash", getattr(command, "example", path), "```", "")


def _recipe(name: str) -> Iterator[str]:
    info = recipes.about(name)
    yield from (f"## {name}", "", f"{info.summary[:1].upper()}{info.summary[1:]}.", "")
    for heading, text in (("Time", info.time), ("Numbers", info.numbers)):
        if text:
            yield from (f"{heading}: {text}.", "")
    yield from ("```toml", recipes.find(name).read_text(encoding="utf-8").rstrip(), "```", "")


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _cell(value: str) -> str:
    return f"`{value}`" if value else ""


def _text(said: str) -> str:
    """Prose in which ``<``, ``*``, ``_`` and ``|`` are no markup, but for what is set as code."""
    parts = re.split(r"(`+[^`]+`+)", said)
    return "".join(
        part if index % 2 else re.sub(r"[<*_|]", r"\\\g<0>", part) for index, part in enumerate(parts)
    )
