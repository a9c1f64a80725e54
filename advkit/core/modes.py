"""Modes of PyTorch that a caller may be in, and that must change no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_modes() -> Iterator[None]:
    """Gradients are recorded, whether the caller records them or not, and computations have the precision
    that the tensors and advkit's own settings say, not the caller's `torch.autocast`. Also a decorator."""
    with torch.inference_mode(False), torch.enable_grad(), _outside_autocast():
        yield


@contextmanager
def _outside_autocast() -> Iterator[None]:
    """As if no autocast had begun. An inner one, even one that is off, would not do: copies of weights are
    kept until the outermost ends, so a training inside would go on with weights of earlier steps."""
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    for kind in kinds:
        torch.set_autocast_enabled(kind, False)
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        for kind in kinds:
            torch.set_autocast_enabled(kind, True)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()
