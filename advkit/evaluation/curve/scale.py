"""Round values of eps, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from advkit.core.threat import Norm, is_level

WANTED = 6
"""Approximate number of round values on a scale."""


@dataclass(frozen=True)
class Scale:
    """Round values of eps that cover a curve."""

    eps: tuple[float, ...]

    @classmethod
    def of(cls, norm: Norm, norms: Sequence[float], marks: Sequence[float]) -> Scale:
        """Multiples of a round step, up to the 90 % quantile of the minimum norms.

        Args:
            norm: in l0 the values are integers.
            norms: the finite minimum norms of correctly classified images.
            marks: usual eps; if one is a multiple of 1/255 and no short decimal, all values are multiples.
        """
        ordered = sorted(norms)
        top = ordered[len(ordered) * 9 // 10] if ordered else max(marks, default=1.0)
        parts = parts_of_one(norm, marks)
        step = _round(top * parts / WANTED)
        if norm == "l0" or parts != 1:
            step = max(1.0, math.ceil(step))
        count = max(1, math.ceil(top * parts / step - 1e-9))
        return cls(tuple(float(f"{number * step:.12g}") / parts for number in range(1, count + 1)))


def parts_of_one(norm: Norm, marks: Sequence[float]) -> int:
    """255 where eps is given in units of 1/255: if a usual eps is such a multiple and no decimal; else 1."""
    return 255 if norm == "linf" and any(is_level(mark) for mark in marks) else 1


def _round(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``step``."""
    ten = 10.0 ** math.floor(math.log10(step))
    return next((factor * ten for factor in (1, 2, 5) if factor * ten >= step * (1 - 1e-9)), 10 * ten)
