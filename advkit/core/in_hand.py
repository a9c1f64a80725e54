"""Objects that a Python caller has at hand, under names that a configuration can hold.

A configuration says which run it is by plain values. So a module or a data set in hand gets a name that
follows from its content, ``memory:DIGEST``: the same object has the same name in another process, and a run
that was killed goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

PREFIX = "memory:"

_HELD: ContextVar[Mapping[str, Any]] = ContextVar("held", default={})  # noqa: B039 (never changed)
"""Of this thread: another may hold the same thing for longer."""


@contextmanager
def holding(things: Mapping[str, Any]) -> Iterator[None]:
    """Inside, `held` finds ``things`` by their names, which begin with `PREFIX`."""
    before = _HELD.set({**_HELD.get(), **things})
    try:
        yield
    finally:
        _HELD.reset(before)


def held(name: object) -> Any | None:
    """What is at hand under this name."""
    return _HELD.get().get(name) if isinstance(name, str) else None
