"""Global random number generators, for foreign code that uses them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from advkit.core import rng

_REAL, _TURN = np.random.RandomState, threading.RLock()
_INSIDE: set[int] = set()
"""The thread that is in `seeded`."""


class _Kind(type(_REAL)):  # type: ignore[misc]
    """Of `_RandomState`: to other threads it is the real class."""

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, _REAL)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _REAL)

    def __call__(cls, seed: Any = None) -> np.random.RandomState:
        if seed is None and threading.get_ident() in _INSIDE:
            seed = np.random.randint(2**31)
        return _REAL(seed)


class _RandomState(np.random.RandomState, metaclass=_Kind):
    """Replaces ``RandomState()`` inside `seeded`: seeded from the global generator, not from the system."""


@contextmanager
def seeded(device: torch.device, key: int) -> Iterator[None]:
    """Seeds the global generators of PyTorch, NumPy and Python from ``key``; restores all afterwards. One
    thread at a time is inside.

    Generators created inside without a seed are seeded from NumPy's, so that nothing depends on the clock.
    """
    with _TURN, rng.scope(device, key, "torch"):
        numpy_state, python_state = np.random.get_state(), random.getstate()
        np.random.seed(rng.derive(key, "numpy") % 2**32)
        random.seed(rng.derive(key, "python"))
        np.random.RandomState = _RandomState  # type: ignore[misc]
        _INSIDE.add(threading.get_ident())
        try:
            yield
        finally:
            _INSIDE.clear()
            np.random.RandomState = _REAL  # type: ignore[misc]
            np.random.set_state(numpy_state)
            random.setstate(python_state)
