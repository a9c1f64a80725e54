"""``advkit models``: the model store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from advkit.cli.completion import Words, of_kinds, runs, shipped_names, stored
from advkit.cli.described import DescribedGroup
from advkit.cli.execute import json_option, show
from advkit.core.errors import ConfigError, ModelError
from advkit.core.stats import accuracy
from advkit.models.shipped import FOLDER, PREFIX, SHIPPED, shipped
from advkit.report.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from advkit.models.card import ModelCard
    from advkit.models.store import Kin

MODEL = Words(stored, files=True)
ANY_MODEL = Words(lambda: [*stored(), *shipped_names()], files=True)

HASH_DIGITS = 12
"""Digits of a hash that identify a model."""


@click.group(
    "models",
    cls=DescribedGroup,
    example="advkit models ls\nadvkit models lineage digits-conv-gan-discriminator",
)
def models() -> None:
    """The models on this machine: training saves them in the store, and --model finds them by name.

    The store is the folder models under $ADVKIT_HOME, or under ~/.advkit. Wherever a name in the store may
    be, advkit:NAME is a model that ships with advkit.
    """


@models.command(
    "ls", short_help="list the models", example="advkit models ls\nadvkit models ls discriminator digits"
)
@click.argument("words", nargs=-1)
@json_option
def ls(words: tuple[str, ...], json_to: Path | None) -> None:
    """List the models of the store and those that ship; with WORDS, those whose line mentions all of them."""
    from advkit.models.header import read_card
    from advkit.models.store import Store

    rows, plain, store = [], [], Store()
    unknown = (((name,), "", None) for name in store.damaged)
    for names, digest, card in (*store.cards(), *unknown):
        role, architecture = (card.role, card.architecture) if card else ("", "damaged")
        data = card.data.name if card and card.data else ""
        row = ("\n".join(names) or digest[:HASH_DIGITS], role, architecture, data)
        if _mentions(" ".join([*row, digest]), words):
            rows.append(row)
            plain.append(
                {"names": names, "hash": digest, "role": role, "architecture": architecture, "data": data}
            )
    ready, facts = [], []
    for name, recipe in SHIPPED.items():
        if (card := read_card(shipped(name))) is None:
            continue
        line = (PREFIX + name, card.architecture, _measured(card), recipe)
        data = card.data.name if card.data else ""
        if _mentions(" ".join([*line, card.role, data]), words):
            ready.append(line)
            facts.append({"name": line[0], "recipe": recipe, **card.model_dump(mode="json", include=_LISTED)})
    tables = (
        Table("", ("name", "role", "architecture", "trained on"), tuple(rows)),
        Table("shipped with advkit", ("name", "architecture", "measured", "recipe"), tuple(ready)),
    )
    title = "models in the store" if rows else "The store is empty." if not words else ""
    show(
        Outcome(
            title or ("models" if ready else "No model matches."),
            tables=tuple(table for table in tables if table.rows),
            next=() if rows or words else ("advkit attack --model advkit:digits-robust", "advkit gan-train"),
            result={"models": plain, "shipped": facts},
        ),
        json_to,
    )


def _mentions(line: str, words: tuple[str, ...]) -> bool:
    return all(word.lower() in line.lower() for word in words)


_LISTED = {"role", "architecture", "data", "threat", "accuracies", "metrics"}


def _measured(card: ModelCard) -> str:
    """The accuracies of a card and the threat model, of a generator the FID."""
    shares = [
        f"{one.name} {100 * one.correct / one.data.n:.1f} %{' (doubted)' if one.doubts else ''}"
        for one in card.accuracies
    ]
    shares += [f"FID {card.metrics['fid']:.2f}"] if "fid" in card.metrics else []
    threats = {f"{one.threat.norm} eps {one.threat.eps:.4g}": None for one in card.accuracies if one.threat}
    return "\n".join([*shares, *threats])


@models.command(
    "show",
    short_help="show the card of one",
    example="advkit models show digits-conv-gan-ema\nadvkit models show clf.pt",
)
@click.argument("model", type=ANY_MODEL)
@json_option
def card(model: str, json_to: Path | None) -> None:
    """Show the card of MODEL: a name or hash in the store, advkit:NAME, or a file that advkit wrote."""
    from advkit.models.header import read_card

    path = _file(model)
    found = read_card(path)
    if found is None:
        raise ModelError(f"{path} has no card, so advkit did not write it; only its weights are known")
    show(_card(model, path, found), json_to)


def _file(model: str) -> Path:
    """Of a model that is named as one, or by a name or hash in the store."""
    from advkit.models.store import Store

    if model.startswith(PREFIX):
        return shipped(model)
    return path if (path := Path(model)).is_file() else Store().path(model)


def _card(model: str, path: Path, card: ModelCard) -> Outcome:
    facts = {
        "role": card.role,
        "architecture": card.architecture,
        **{f"architecture's {key}": value for key, value in card.config.items()},
        "images (channels, height, width)": card.shape,
        "classes": card.classes,
        "trained on": f"{card.data.name}, {card.data.split}, {card.data.n:,} images" if card.data else "",
        "trained against": f"{card.threat.norm} eps {card.threat.eps:.4g}" if card.threat else "",
        **{each.relation.replace("-", " "): each.name or each.hash[:HASH_DIGITS] for each in card.lineage},
        "written": f"{card.created} by advkit {card.advkit}" if card.created else "",
        "recipe": SHIPPED[path.stem] if path.parent == FOLDER else "",
        "notes": card.notes,
    }
    accuracies = {
        f"{one.name} accuracy, {one.data.name} {one.data.split}"
        + (f", {one.threat.norm} eps {one.threat.eps:.4g}" if one.threat else ""): (
            f"{accuracy(one.correct, one.data.n)}, {one.correct:,} of {one.data.n:,}"
            + (f", doubted by {', '.join(one.doubts)}" if one.doubts else "")
        )
        for one in card.accuracies
    }
    tables = (
        Table.of_facts("", "fact", facts),
        Table.of_facts("measured", "figure", {**accuracies, **card.metrics}),
        Table.of_facts("training", "key", card.training),
    )
    shown = tuple(table for table in tables if table.rows)
    return Outcome(model, tables=shown, files=(path,), result=card.model_dump(mode="json", by_alias=True))


@models.command(
    "lineage",
    short_help="draw a model's lineage",
    example="advkit models lineage digits-conv-gan-discriminator",
)
@click.argument("model", type=MODEL)
@json_option
def lineage(model: str, json_to: Path | None) -> None:
    """Draw the lineage of MODEL: the models it was made from, and those made from it."""
    from advkit.models.store import Store

    store = Store()
    digest = store.hash(model)
    family = store.family(model)
    lines = tuple(line for kin in family for line in _branch(kin, digest, "", ""))
    result = {"family": [_plain(kin) for kin in family]}
    show(Outcome(f"Lineage of {model}", lines, result=result), json_to)


def _branch(kin: Kin, here: str, first: str, rest: str) -> Iterator[str]:
    name = ", ".join(kin.names) or kin.hash[:HASH_DIGITS]
    relation = f", {kin.relation.replace('-', ' ')} the above" if kin.relation else ""
    what = f"{kin.card.role} {kin.card.architecture}" if kin.card else "not in the store"
    yield f"{first}{name} ({what}{relation}){'  <- this one' if kin.hash == here else ''}"
    for number, child in enumerate(kin.children, 1):
        last = number == len(kin.children)
        yield from _branch(child, here, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def _plain(kin: Kin) -> dict[str, object]:
    children = [_plain(child) for child in kin.children]
    return {"hash": kin.hash, "names": list(kin.names), "relation": kin.relation, "children": children}


@models.command(
    "export",
    short_help="write one to a file",
    example="advkit models export digits-conv-gan-ema generator.safetensors\n"
    "advkit models export clf.pt small.safetensors --half\n"
    "advkit models export small.safetensors small.safetensors --half --runs 12 --overwrite",
)
@click.argument("model", type=ANY_MODEL)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="FILE may be replaced.")
@click.option(
    "--half",
    is_flag=True,
    help="Round the weights to float16, which halves the file. The rounded model is another one, of "
    "which nothing has been measured yet; it computes in float32.",
)
@click.option(
    "--runs",
    type=Words(runs, several=True),
    help="Runs of attack, certify and gan-eval of this model, with commas: what they measured is written "
    "on its card.",
)
def export(model: str, file: Path, overwrite: bool, half: bool, runs: str | None) -> None:
    """Write MODEL with its card to FILE, in the format of its suffix: .safetensors or .pt.

    MODEL is a name or hash in the store, advkit:NAME, or a file that advkit wrote.
    """
    from advkit.models.checkpoint import read_checkpoint, rounded, write_checkpoint
    from advkit.models.model import content_hash

    source = _file(model)
    card, state = read_checkpoint(source)
    if card is None:
        raise ModelError(
            f"{source} has no card, so advkit did not write it; `advkit models import` gives it one"
        )
    if half:
        card, state = rounded(card, state, "" if source == Path(model) else model)
    if runs:
        from advkit.report.measured import on_card

        card = on_card(card, content_hash(card, state), runs.split(","))
    click.echo(write_checkpoint(card, state, file, overwrite=overwrite, half=half))


@models.command(
    "import",
    short_help="add a file",
    example="advkit models import clf.pt my-classifier\nadvkit models import weights.pt lenet-a --arch lenet",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option(
    "--arch",
    type=Words(of_kinds("architectures")),
    help="Architecture of a file without a card (see `advkit ls architectures`).",
)
def import_(file: Path, name: str | None, arch: str | None) -> None:
    """Add FILE to the store as NAME, by default the file's own name without its suffix."""
    from advkit.models.store import Store

    name = name or file.stem
    digest = Store().import_(file, name, arch=arch)
    click.echo(f"{name} {digest[:HASH_DIGITS]}")


@models.command(
    "rm", short_help="remove models", example="advkit models rm digits-conv-gan-generator digits-conv-gan-ema"
)
@click.argument("model", nargs=-1, required=True, type=MODEL)
def rm(model: tuple[str, ...]) -> None:
    """Remove each MODEL from the store; if one of them is missing, nothing is removed."""
    from advkit.models.store import Store

    store = Store()
    if twice := {name for name in model if model.count(name) > 1}:
        raise ConfigError(f"{', '.join(sorted(twice))} is named twice; name each model once")
    for name in model:
        store.hash(name)
    for name in model:
        store.remove(name)
        click.echo(f"removed {name}")
