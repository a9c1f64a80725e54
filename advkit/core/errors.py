"""Every fault that a user can cause, as one sentence: what is wrong, where, and what to do.

The command line prints the sentence and exits with 2; Python callers get the exception.
A fault of advkit itself is never one of these, so its traceback stays visible.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault with a way out that the user can take; the message is the whole explanation."""


class ConfigError(UserError):
    """An option, a recipe key or a name that does not exist or does not fit."""


class ModelError(UserError):
    """A model that cannot be loaded, or does not behave as a model of its role should."""


class DataError(UserError):
    """Images or labels that are missing, or that do not fit the model or their own description."""


class OutputError(UserError):
    """A place that cannot be written: read-only, full, or already holding something else."""


class BusyError(UserError):
    """Another process is working in the same place."""


class LostError(UserError):
    """Another process that shared the work has ended."""


class DivergedError(UserError):
    """Training whose numbers are no longer finite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'pgd'?)"`` for the nearest known name, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def by_size(shape: Iterable[int]) -> str:
    """A shape as people write it: 3x32x32."""
    return "x".join(map(str, shape))
