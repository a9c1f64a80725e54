"""Stops training when the loss is no longer finite."""

from __future__ import annotations

import math
from collections.abc import Mapping

from advkit.core.errors import DivergedError


def stop_if_diverged(place: str, losses: Mapping[str, float], remedy: str) -> None:
    """Raises `DivergedError` at the first loss that is not finite.

    Args:
        place: where the training is, such as "update 10 of 200".
        losses: by what a person calls them.
        remedy: what to do about it.
    """
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise DivergedError(f"training diverged at {place}: {name} is {loss}; {remedy}")
