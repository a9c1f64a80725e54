"""How many rows to work on at once: measured while the work goes on, so that measuring costs no pass."""

from __future__ import annotations

import math

import torch

LOOKS = 3
"""Measurements of a size before the next is tried."""
GAIN = 0.97
"""A size must take less than this share of the time per row of the smaller ones to be preferred."""


class Pace:
    """The batch size that is fastest on this machine for this model.

    Sizes are tried upward from a cautious one, each on work that had to be done anyway, until doubling no
    longer pays. Verdicts do not depend on it.

    Args:
        device: where the work is.
        shape: (C, H, W) of an image; large ones start from smaller batches.
        fixed: the size, if somebody has decided it.
    """

    def __init__(self, device: torch.device, shape: tuple[int, ...], fixed: int | None = None) -> None:
        small = max(1, math.prod(shape) // 3072)
        first, rungs = (64, 4) if device.type == "cpu" else (512, 6)
        first = max(first // small, 16)
        self._sizes = [fixed] if fixed is not None else [first * 2**rung for rung in range(rungs)]
        self._rung = dict.fromkeys((True, False), 0)
        self._best = dict.fromkeys((True, False), 0)
        self._seconds: dict[tuple[bool, int], float] = {}
        self._looks = dict.fromkeys((True, False), 0)

    def size(self, gradients: bool) -> int:
        """Rows to have at work, with or without gradients."""
        return self._sizes[self._rung[gradients]]

    def saw(self, gradients: bool, rows: int, seconds: float) -> None:
        """So long a step of so many rows took."""
        rung = self._rung[gradients]
        if self._looks[gradients] < 0 or rows != self._sizes[rung]:
            return
        per_row = min(seconds / rows, self._seconds.get((gradients, rung), math.inf))
        self._seconds[gradients, rung] = per_row
        self._looks[gradients] += 1
        if self._looks[gradients] < LOOKS:
            return
        best = self._best[gradients]
        if rung == best or per_row < GAIN * self._seconds[gradients, best]:
            self._best[gradients] = rung
        if rung + 1 < len(self._sizes) and rung - self._best[gradients] < 2:
            self._rung[gradients], self._looks[gradients] = rung + 1, 0
        else:
            self._rung[gradients], self._looks[gradients] = self._best[gradients], -1
