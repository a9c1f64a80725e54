"""Errors that a user can correct: one sentence that says what is wrong, where, and what to do.

The command line prints the sentence and exits with 2; Python callers get the exception, whose ``code`` stays
the same when the sentence is reworded. An internal error of advkit is never one of these, so its traceback
stays visible.

Codes, each the one of its class unless the error says a narrower one:

==================== =========================================================
``invalid-config``   `ConfigError`; of these ``unknown-name``: a name that no registry has;
                     ``run-differs``: a run folder of other settings, models or data;
                     ``nothing-to-resume``: no run to resume;
                     ``run-not-found``: no such run;
                     ``not-in-shards``: an option that no shard can follow alone;
                     ``shards-missing``: not all shards of a run are done and named;
                     ``not-comparable``: runs on other images, under another threat model or
                     weaker attacks
``invalid-model``    `ModelError`; of these ``model-not-found``: neither a file nor in the store
``invalid-data``     `DataError`; of these ``data-not-found``: a data set that is not downloaded
``cannot-write``     `OutputError`; of these ``already-exists``: a file or folder that would be replaced
``run-in-use``       `BusyError`
``process-lost``     `LostError`
``diverged``         `DivergedError`
==================== =========================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can correct; the message is the whole explanation.

    Args:
        message: the explanation.
        code: a narrower code than that of the class.

    Attributes:
        code: what kind of error it is, as a short stable word.
    """

    code: str = "user-error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(bounded(message))
        if code is not None:
            self.code = code


class ConfigError(UserError):
    """An option, a recipe key or a name that does not exist or does not fit."""

    code = "invalid-config"


class ModelError(UserError):
    """A model that cannot be loaded, or does not behave as a model of its role should."""

    code = "invalid-model"


class DataError(UserError):
    """Images or labels that are missing, or that do not fit the model or their own description."""

    code = "invalid-data"


class OutputError(UserError):
    """A place that cannot be written: read-only, full, or already holding something else."""

    code = "cannot-write"


class BusyError(UserError):
    """Another process is working in the same place."""

    code = "run-in-use"


class LostError(UserError):
    """Another process that shared the work has ended."""

    code = "process-lost"


class DivergedError(UserError):
    """Training whose numbers are no longer finite."""

    code = "diverged"


LONGEST, MOST = 500, 20
"""Characters of one fault in a message, and faults in it: a hostile file may name a million things."""


def bounded(message: str) -> str:
    """The message; of more than `MOST` faults the first ones, and of one longer than `LONGEST` its ends."""
    faults = message.split("; ", MOST)
    more = [f"and {faults.pop().count('; ') + 1:,} more"] if len(faults) > MOST else []
    return "; ".join([*map(_cut, faults), *more])


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 105]} ... {text[-100:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'pgd'?)"`` for the nearest known name, or an empty string when none is near."""
    lower = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name[:LONGEST].strip().lower(), lower, n=1, cutoff=0.6)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""


def readable(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of file names that are no UTF-8 are escaped, as ``\\xfc``."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # another half of a pair, as a name on Windows may hold
        content = text.encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first of some names, and whether there are more: a, b, ..."""
    known = [*map(str, names)]
    return ", ".join(known[:most] + ["..."] * (len(known) > most))


def by_size(shape: Iterable[int]) -> str:
    """A shape as people write it: 3x32x32."""
    return "x".join(map(str, shape))
