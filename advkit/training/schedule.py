"""The learning rate as a pure function of the update, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["one-cycle", "cosine", "constant"]

RISE = 0.3
"""Share of a one-cycle run over which the rate rises."""
START = 0.04
"""Where a one-cycle run begins, as a share of the peak."""


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """The rate of update ``step`` (from 0) of ``steps``, as a share of its peak.

    one-cycle: up along half a cosine, then down to 0 (Smith and Topin 2019); cosine: down to 0 from the
    first update on (Loshchilov and Hutter 2017); constant: 1.
    """
    done = step / steps
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _fall(done)
    if done < RISE:
        return 1 - (1 - START) * _fall(done / RISE)
    return _fall((done - RISE) / (1 - RISE))


def _fall(done: float) -> float:
    """Half a cosine, from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2
