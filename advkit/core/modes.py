"""Modes of PyTorch that a caller may be in, and that must change no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_modes() -> Iterator[None]:
    """Gradients are recorded, whether the caller records them or not, and computations have the precision
    that the tensors and advkit's own settings say, not the caller's `torch.autocast`. Also a decorator."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield
