"""Global generators of random numbers, for code that draws from nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from advkit.core import rng


class _Following(np.random.RandomState):
    """What ``RandomState()`` is inside `drawing`: seeded from the global generator, not from the system."""

    def __init__(self, seed: object = None) -> None:
        super().__init__(np.random.randint(2**31) if seed is None else seed)  # type: ignore[arg-type]


@contextmanager
def drawing(device: torch.device, key: int) -> Iterator[None]:
    """Inside, PyTorch's, NumPy's and Python's global generators are seeded from ``key``; all are put back.

    Generators that are made inside without a seed follow NumPy's, so that nothing depends on the clock.
    """
    numpy_state, python_state, made = np.random.get_state(), random.getstate(), np.random.RandomState
    with rng.scope(device, key, "torch"):
        np.random.seed(rng.derive(key, "numpy") % 2**32)
        random.seed(rng.derive(key, "python"))
        np.random.RandomState = _Following  # type: ignore[misc]
        try:
            yield
        finally:
            np.random.RandomState = made  # type: ignore[misc]
            np.random.set_state(numpy_state)
            random.setstate(python_state)
