"""Things that a user names as ``package.module:name``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from advkit.core.errors import UserError, did_you_mean


def at(place: str) -> Any:
    """What is called ``name`` in ``module``, of our own ``"module:name"``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def is_named(text: str) -> bool:
    """Whether ``text`` reads like ``package.module:name``."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None


_REFUSED: ContextVar[bool] = ContextVar("refused", default=False)


@contextmanager
def without_code(wanted: bool = True) -> Iterator[None]:
    """Inside, if it is ``wanted``, `named` refuses to import anything."""
    before = _REFUSED.set(wanted)
    try:
        yield
    finally:
        _REFUSED.reset(before)


def named(text: str, fault: type[UserError], advice: str) -> Any:
    """Imports the module, which runs its code, and returns what it calls ``name``; the current folder counts.

    Args:
        text: ``package.module:name``; the name may have dots.
        advice: what to do about a fault ("check --model").

    Raises:
        fault: the module cannot be imported, or has no such name.
    """
    place, _, name = text.partition(":")
    if _REFUSED.get():
        raise fault(f"{text!r} names code, which a dry run does not import; leave --dry-run out to run it")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(place)
    except SystemExit as stop:
        raise fault(
            f"{place!r} ends the program when it is imported, as a script does; put what it runs under "
            'if __name__ == "__main__":'
        ) from stop
    except Exception as error:  # an import runs the module, so anything may happen
        raise fault(f"cannot import {place!r} ({type(error).__name__}: {error}); {advice}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise fault(f"{place!r} has no {name!r}{did_you_mean(part, dir(found))}; {advice}")
        found = getattr(found, part)
    return found
