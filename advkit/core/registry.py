"""Named things: architectures, data sets, attacks, losses, objectives.

A thing registers itself with one decorator in a file of its own. The registry imports the files of
its package on the first query, so there is no list to keep and nothing is
imported before it is needed. Other distributions join in through the entry-point group ``advkit``:
loading such an entry point imports a module whose decorators do the rest.

Things named by another library, too many to import one by one, are a *family*: ``art:HopSkipJump`` is
asked of the function that answers for ``art``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Generic, NamedTuple, TypeVar, cast

from advkit.core.errors import ConfigError, did_you_mean

T = TypeVar("T")
S = TypeVar("S")

_loaded: set[str] = set()
"""Entry points whose modules are imported, or being imported."""


def _load_entry_points() -> None:
    for point in metadata.entry_points(group="advkit"):
        if point.value in _loaded:
            continue
        _loaded.add(point.value)  # first, so that a module that asks while being imported does not recurse
        try:
            point.load()
        except Exception as error:  # a foreign module may fail in any way
            _loaded.discard(point.value)
            raise ConfigError(
                f"the plug-in {point.name!r} ({point.value}) cannot be imported ({type(error).__name__}: "
                f"{error}); fix it, or uninstall the package that it belongs to"
            ) from error


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing and what is said about it in listings and in the reference."""

    name: str
    thing: T
    summary: str
    source: str = ""
    aliases: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class Rows(NamedTuple):
    """A table that a registered thing adds to its own listing: what its classmethod ``listing()`` returns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Registry(Generic[T]):
    """Names to things of one kind.

    Args:
        kind: what the things are called in messages, in the singular ("attack").
        packages: dotted packages whose modules register themselves when imported.
    """

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind = kind
        self._packages = packages
        self._entries: dict[str, Entry[T]] = {}
        self._families: dict[str, Callable[[str], Entry[T]]] = {}
        self._aliases: dict[str, str] = {}
        self._discovered = False

    def register(
        self, name: str, *, summary: str, source: str = "", aliases: tuple[str, ...] = (), **facts: Any
    ) -> Callable[[S], S]:
        """Decorator that registers a thing under ``name``; a name that is taken is an error."""

        def enrol(thing: S) -> S:
            for taken in (name, *aliases):
                if taken in self._entries or taken in self._aliases:
                    raise ValueError(f"{self.kind} {taken!r} is registered twice")
            self._entries[name] = Entry(name, cast(T, thing), summary, source, aliases, facts)
            self._aliases.update(dict.fromkeys(aliases, name))
            return thing

        return enrol

    def family(self, prefix: str) -> Callable[[Callable[[str], Entry[T]]], Callable[[str], Entry[T]]]:
        """Decorator of the function that makes the entry ``prefix:NAME`` of NAME, or raises ConfigError.

        Listings leave families out, since making all of their things may cost seconds.
        """

        def enrol(make: Callable[[str], Entry[T]]) -> Callable[[str], Entry[T]]:
            if prefix in self._families:
                raise ValueError(f"{self.kind} family {prefix!r} is registered twice")
            self._families[prefix] = make
            return make

        return enrol

    @property
    def families(self) -> dict[str, str]:
        """What ``PREFIX:NAME`` is, by its prefix: the first sentence of who makes it."""
        self._discover()
        return {
            prefix: " ".join((make.__doc__ or "").partition("\n\n")[0].split())
            for prefix, make in sorted(self._families.items())
        }

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # first, so that a module that asks while being imported does not recurse
        try:
            for name in self._packages:
                for module in pkgutil.iter_modules(importlib.import_module(name).__path__):
                    importlib.import_module(f"{name}.{module.name}")
            _load_entry_points()
        except BaseException:
            self._discovered = False  # so that no later query gets half a registry
            raise

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name`` or one of its aliases.

        Raises:
            ConfigError: there is none; the message names the nearest and how to list them.
        """
        self._discover()
        prefix, colon, rest = name.partition(":")
        if colon and prefix in self._families:
            return self._families[prefix](rest)
        found = self._entries.get(self._aliases.get(name, name))
        if found is None:
            near = did_you_mean(name, [*self._entries, *self._aliases])
            raise ConfigError(
                f"there is no {self.kind} called {name!r}{near}; known: {', '.join(sorted(self._entries))}",
                code="unknown-name",
            )
        return found

    def get(self, name: str) -> T:
        """The thing called ``name``."""
        return self.entry(name).thing

    def __contains__(self, name: str) -> bool:
        try:
            self.entry(name)
        except ConfigError:
            return False
        return True

    def __iter__(self) -> Iterator[Entry[T]]:
        """Entries in the order of their names."""
        self._discover()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))
