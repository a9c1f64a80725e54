"""``advkit ls``: what there is, from the registries themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from advkit.cli import recipes
from advkit.cli.described import Described
from advkit.cli.execute import json_option, show
from advkit.cli.options import about, default
from advkit.core.errors import ConfigError, did_you_mean
from advkit.core.named import at
from advkit.core.registry import Entry, Rows
from advkit.report.outcome import Outcome, Table


class Row(NamedTuple):
    """One thing in a listing."""

    name: str
    summary: str
    source: str = ""
    entry: Entry[Any] | None = None
    """Where it comes from a registry."""

    def mentions(self, words: tuple[str, ...]) -> bool:
        """Whether all the words occur, in capitals or not."""
        text = f"{self.name} {self.summary} {self.source}".lower()
        return all(word.lower() in text for word in words)


class Kind(NamedTuple):
    """One kind of things."""

    summary: str
    rows: Callable[[], Iterable[Row]]


def _registry(place: str) -> Callable[[], Iterable[Row]]:
    return partial(_registered, place)


def _registered(place: str) -> Iterable[Row]:
    for entry in at(place):
        facts = [str(entry.facts["role"])] if "role" in entry.facts else []
        also = [f"also called {', '.join(entry.aliases)}"] if entry.aliases else []
        yield Row(entry.name, "; ".join([*facts, entry.summary, *also]), entry.source, entry)


def _art() -> Iterable[Row]:
    from advkit.integrations.art_attack import entries

    return (Row(entry.name, entry.summary, entry.source, entry) for entry in entries())


def _pairs() -> Iterable[Row]:
    from advkit.models.network import ARCHITECTURES, pairs

    for name in pairs():
        generator = ARCHITECTURES.entry(f"{name}-generator")
        yield Row(name, generator.summary, generator.source)


def _commands() -> Iterable[Row]:
    from advkit.cli.app import sections

    return (Row(name, summary) for _, commands in sections() for name, summary in commands.items())


def _recipes() -> Iterable[Row]:
    return (Row(name, recipes.about(name).summary) for name in recipes.names())


KINDS = {
    "commands": Kind("what advkit can be told to do", _commands),
    "recipes": Kind("experiments ready to run: advkit run NAME", _recipes),
    "data": Kind("data sets: --data NAME", _registry("advkit.data.dataset:DATASETS")),
    "architectures": Kind("networks by role: --arch NAME", _registry("advkit.models.network:ARCHITECTURES")),
    "pairs": Kind("generators with their discriminators: gan-train --arch NAME", _pairs),
    "gan-losses": Kind("objectives of a GAN: gan-train --loss NAME", _registry("advkit.gan.loss:GAN_LOSSES")),
    "regularisers": Kind(
        "terms that keep a discriminator smooth: gan-train --regularisers NAME",
        _registry("advkit.gan.regulariser:REGULARISERS"),
    ),
    "gan-metrics": Kind(
        "figures of generated images: gan-eval --metrics NAME", _registry("advkit.gan.metric:METRICS")
    ),
    "attacks": Kind(
        "ways to fool a classifier: attack --attack NAME", _registry("advkit.attacks.attack:ATTACKS")
    ),
    "art-attacks": Kind("those of the Adversarial Robustness Toolbox: attack --attack art:NAME", _art),
    "ensembles": Kind("attacks that belong together", _registry("advkit.attacks.ensemble:ENSEMBLES")),
    "attack-losses": Kind("what a gradient attack maximises", _registry("advkit.attacks.loss:ATTACK_LOSSES")),
    "checks": Kind(
        "whether a robust accuracy can be believed: asked after every attack",
        _registry("advkit.evaluation.check:CHECKS"),
    ),
    "defences": Kind(
        "what is done to images before they are classified: defence-eval --defence NAME",
        _registry("advkit.defences.purifier:DEFENCES"),
    ),
    "objectives": Kind(
        "ways to train robustly: adv-train --objective NAME",
        _registry("advkit.training.objective:OBJECTIVES"),
    ),
}


@click.command(
    "ls", cls=Described, example="advkit ls\nadvkit ls architectures generator\nadvkit ls attacks pgd"
)
@click.argument("kind", required=False)
@click.argument("words", nargs=-1)
@json_option
def ls(kind: str | None, words: tuple[str, ...], json_to: Path | None) -> None:
    """List what there is.

    Without KIND: the kinds. With WORDS: only what mentions all of them; a single thing that is left is
    shown with its parameters, an ensemble also with its stages.
    """
    if kind is None:
        show(_kinds(), json_to)
    elif kind in KINDS:
        show(_listing(kind, words), json_to)
    else:
        known = ", ".join(KINDS)
        raise ConfigError(
            f"there is no kind of thing called {kind!r}{did_you_mean(kind, KINDS)}; known: {known}"
        )


def _kinds() -> Outcome:
    counts = {name: len(list(kind.rows())) for name, kind in KINDS.items()}
    rows = tuple((name, str(counts[name]), kind.summary) for name, kind in KINDS.items())
    return Outcome(
        "What there is",
        tables=(Table("", ("kind", "count", "what"), rows),),
        next=("advkit ls KIND",),
        result=counts,
    )


def _listing(kind: str, words: tuple[str, ...]) -> Outcome:
    everything = list(KINDS[kind].rows())
    named = [row for row in everything if (row.name,) == words]
    rows = named or [row for row in everything if row.mentions(words)]
    if not rows:
        near = did_you_mean(words[0], [row.name for row in everything]) if words else ""
        raise ConfigError(f"none of the {len(everything)} {kind} mentions {' '.join(words)!r}{near}")
    listed = tuple((row.name, row.summary, row.source) for row in rows)
    tables = [Table("", ("name", "summary", "source"), listed)]
    if not any(row.source for row in rows):
        tables = [Table("", ("name", "summary"), tuple(row[:2] for row in listed))]
    if len(rows) == 1 and (parameters := _parameters(rows[0])):
        tables.append(Table("parameters", ("key", "default", "meaning"), parameters))
    result = {kind: [{"name": row.name, "summary": row.summary, "source": row.source} for row in rows]}
    listing = getattr(rows[0].entry.thing, "listing", None) if len(rows) == 1 and rows[0].entry else None
    if listing is not None:
        more: Rows = listing()
        tables.append(Table(more.title, more.columns, more.rows))
        result[more.title] = [dict(zip(more.columns, one, strict=True)) for one in more.rows]
    return Outcome(f"{kind}: {KINDS[kind].summary}", tables=tuple(tables), result=result)


def _parameters(row: Row) -> tuple[tuple[str, str, str], ...]:
    settings = getattr(row.entry.thing, "Config", None) if row.entry else None
    if settings is None:
        return ()
    return tuple((name, default(field), about(field)) for name, field in settings.model_fields.items())
