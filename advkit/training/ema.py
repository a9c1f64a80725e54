"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """Keeps ``network``, an averaged copy in eval mode.

    The decay grows as (1 + t) / (10 + t) up to ``decay``, so that early weights are forgotten.
    """

    def __init__(self, source: M, decay: float) -> None:
        self.network = copy.deepcopy(source).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, source: M, step: int) -> None:
        """Moves the average toward ``source`` after its update number ``step`` (from 0)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.network.state_dict(), source.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], weight)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])
