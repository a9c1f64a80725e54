"""Global random number generators, for foreign code that uses them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from advkit.core import rng


class _SeededRandomState(np.random.RandomState):
    """Replaces ``RandomState()`` inside `seeded`: seeded from the global generator, not from the system."""

    def __init__(self, seed: object = None) -> None:
        super().__init__(np.random.randint(2**31) if seed is None else seed)  # type: ignore[arg-type]


@contextmanager
def seeded(device: torch.device, key: int) -> Iterator[None]:
    """Seeds the global generators of PyTorch, NumPy and Python from ``key``; restores all afterwards.

    Generators created inside without a seed are seeded from NumPy's, so that nothing depends on the clock.
    """
    numpy_state, python_state, made = np.random.get_state(), random.getstate(), np.random.RandomState
    with rng.scope(device, key, "torch"):
        np.random.seed(rng.derive(key, "numpy") % 2**32)
        random.seed(rng.derive(key, "python"))
        np.random.RandomState = _SeededRandomState  # type: ignore[misc]
        try:
            yield
        finally:
            np.random.RandomState = made  # type: ignore[misc]
            np.random.set_state(numpy_state)
            random.setstate(python_state)
