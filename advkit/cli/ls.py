"""``advkit ls``: listings of the registries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

import advkit
from advkit.cli import recipes
from advkit.cli.completion import Words
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
    names: Callable[[], Sequence[str]] | None = None
    """What advkit itself registers, read from its files without importing them, to be counted."""


def _registry(summary: str, place: str, decorator: str, *patterns: str) -> Kind:
    """The things of a registry; ``decorator`` registers them in the files that fit ``patterns``."""
    return Kind(summary, partial(_registered, place), partial(_in_files, decorator, *patterns))


def _in_files(decorator: str, *patterns: str) -> list[str]:
    root = Path(advkit.__path__[0])
    texts = [file.read_text("utf-8") for pattern in patterns for file in root.glob(pattern)]
    first = re.compile(rf'^@{decorator}\(\s*"([^"]+)"', re.MULTILINE)
    return [name for text in texts for name in first.findall(text)]


def _registered(place: str) -> Iterable[Row]:
    for entry in at(place):
        facts = [str(entry.facts["role"])] if "role" in entry.facts else []
        also = [f"also called {', '.join(entry.aliases)}"] if entry.aliases else []
        yield Row(entry.name, "; ".join([*facts, entry.summary, *also]), entry.source, entry)


def _art() -> Iterable[Row]:
    from advkit.integrations import art_index
    from advkit.integrations.art_attack import entries

    for entry in entries():
        note = art_index.note(entry.name.partition(":")[2])
        yield Row(entry.name, f"{entry.summary}; {note}" if note else entry.summary, entry.source, entry)


def _art_names() -> list[str]:
    from advkit.integrations import art_index

    return [f"art:{name}" for name in art_index.supported()]


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


def _pair_names() -> list[str]:
    names = _in_files("architecture", "models/architectures/*.py")
    stems = [name.removesuffix("-generator") for name in names if name.endswith("-generator")]
    return [stem for stem in stems if f"{stem}-discriminator" in names]


KINDS = {
    "commands": Kind("the commands of advkit", _commands),
    "recipes": Kind("experiments ready to run: advkit run NAME", _recipes),
    "data": Kind("data sets: --data NAME", partial(_registered, "advkit.data.dataset:DATASETS")),
    "architectures": _registry(
        "networks by role: --arch NAME",
        "advkit.models.network:ARCHITECTURES",
        "architecture",
        "models/architectures/*.py",
    ),
    "pairs": Kind(
        "GAN architectures (generator and discriminator): gan-train --arch NAME", _pairs, _pair_names
    ),
    "gan-losses": _registry(
        "losses of a GAN: gan-train --loss NAME", "advkit.gan.loss:GAN_LOSSES", "gan_loss", "gan/losses/*.py"
    ),
    "regularisers": _registry(
        "regularisers of a discriminator: gan-train --regularisers NAME",
        "advkit.gan.regulariser:REGULARISERS",
        "regulariser",
        "gan/regularisers/*.py",
    ),
    "gan-metrics": _registry(
        "metrics of generated images: gan-eval --metrics NAME",
        "advkit.gan.metric:METRICS",
        "metric",
        "gan/metrics/*.py",
    ),
    "attacks": _registry(
        "adversarial attacks: attack --attack NAME",
        "advkit.attacks.attack:ATTACKS",
        "attack",
        "attacks/*.py",
        "integrations/*.py",
    ),
    "art-attacks": Kind(
        "attacks of the Adversarial Robustness Toolbox: attack --attack art:NAME", _art, _art_names
    ),
    "ensembles": _registry(
        "sequences of attacks: attack --attack NAME",
        "advkit.attacks.ensemble:ENSEMBLES",
        "ensemble",
        "attacks/ensembles/*.py",
    ),
    "attack-losses": _registry(
        "what a gradient attack maximises",
        "advkit.attacks.loss:ATTACK_LOSSES",
        "attack_loss",
        "attacks/losses/*.py",
    ),
    "checks": _registry(
        "sanity checks of a robust accuracy, run after every attack",
        "advkit.evaluation.check:CHECKS",
        "check",
        "evaluation/checks/*.py",
    ),
    "corruptions": _registry(
        "common corruptions in five severities: corrupt --corruptions NAME",
        "advkit.data.corruption:CORRUPTIONS",
        "corruption",
        "data/corruptions/*.py",
    ),
    "defences": _registry(
        "input preprocessing before a classifier: defence-eval --defence NAME",
        "advkit.defences.purifier:DEFENCES",
        "defence",
        "defences/purifiers/*.py",
    ),
    "objectives": _registry(
        "objectives of robust training: adv-train --objective NAME",
        "advkit.training.objective:OBJECTIVES",
        "objective",
        "training/objectives/*.py",
        "trained_attacks/generators/objectives/*.py",
    ),
}


def names(kind: str) -> list[str]:
    """What advkit itself has of a kind, if possible without importing it."""
    found = KINDS[kind]
    return list(found.names() if found.names else (row.name for row in found.rows()))


class OfKind(Words):
    """Completes to the names of the kind before it."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """None for a kind that there is not."""
        kind = ctx.params.get("kind")
        self.names = (lambda: names(kind)) if kind in KINDS else tuple
        return super().shell_complete(ctx, param, incomplete)


@click.command(
    "ls", cls=Described, example="advkit ls\nadvkit ls architectures generator\nadvkit ls attacks pgd"
)
@click.argument("kind", required=False, type=Words(lambda: KINDS))
@click.argument("words", nargs=-1, type=OfKind())
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
    plugins = bool(metadata.entry_points(group="advkit"))  # their things are known after an import only
    counts = {name: len(list(kind.rows() if plugins else names(name))) for name, kind in KINDS.items()}
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
