"""Tunes the batch size from the timings of steps that run anyway, so that tuning costs no pass."""

from __future__ import annotations

import math

import torch

MEASUREMENTS = 3
"""Timings of a size before the next is tried."""
GAIN = 0.97
"""A size is preferred if it takes less than this share of the time per row of the smaller ones."""

CPU_VALUES = 2**23
"""Values of pixels in a batch above which no larger one is tried on a CPU."""


class BatchSizeTuner:
    """Finds the fastest batch size on this machine for this model.

    Starts from a small size and doubles it until that no longer saves time. Verdicts do not depend on it.

    Args:
        shape: (C, H, W) of an image; large ones start from smaller batches.
        fixed: the size to use, if given.
    """

    def __init__(self, device: torch.device, shape: tuple[int, ...], fixed: int | None = None) -> None:
        small = max(1, math.prod(shape) // 3072)
        first, count = (64, 4) if device.type == "cpu" else (512, 6)
        first = max(first // small, 16)
        if device.type == "cpu":  # where larger batches of large images take gigabytes and save no time
            count = max(1, min(count, (CPU_VALUES // (first * math.prod(shape))).bit_length()))
        self._sizes = [fixed] if fixed is not None else [first * 2**power for power in range(count)]
        self._current = dict.fromkeys((True, False), 0)
        self._best = dict.fromkeys((True, False), 0)
        self._seconds: dict[tuple[bool, int], float] = {}
        self._measured = dict.fromkeys((True, False), 0)
        self._most: dict[bool, int] = {}

    def size(self, gradients: bool) -> int:
        """Batch size, with or without gradients."""
        size = self._sizes[self._current[gradients]]
        return min(size, self._most.get(gradients, size))

    def halve(self, gradients: bool) -> bool:
        """Half the size from now on, because the memory does not hold it; False if it is a single row."""
        size = self.size(gradients)
        self._most[gradients], self._measured[gradients] = max(size // 2, 1), -1
        return size > 1

    def record(self, gradients: bool, rows: int, seconds: float) -> None:
        """Records the duration of a step of ``rows`` rows."""
        current = self._current[gradients]
        if self._measured[gradients] < 0 or rows != self._sizes[current]:
            return
        per_row = min(seconds / rows, self._seconds.get((gradients, current), math.inf))
        self._seconds[gradients, current] = per_row
        self._measured[gradients] += 1
        if self._measured[gradients] < MEASUREMENTS:
            return
        best = self._best[gradients]
        if current == best or per_row < GAIN * self._seconds[gradients, best]:
            self._best[gradients] = current
        if current + 1 < len(self._sizes) and current - self._best[gradients] < 2:
            self._current[gradients], self._measured[gradients] = current + 1, 0
        else:
            self._current[gradients], self._measured[gradients] = self._best[gradients], -1
