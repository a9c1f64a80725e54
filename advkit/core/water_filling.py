"""Water filling: the level at which vessels together hold a given amount."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 24
"""Most pieces that are visited; usually five or so. A row that needs more is left a little short."""
TINY = 1e-30


def level(width: Tensor, height: Tensor, amount: Tensor) -> Tensor:
    """(..., R) the t at which sum_i width_i * min(t, height_i) is ``amount``; very large where it never is.

    The sum is a concave, piecewise linear function of t, so that Newton's method climbs from 0 to the root
    from one piece to another and ends there, without sorting.

    Args:
        width: (R, D) not negative.
        height: (..., R, D) not negative.
        amount: (..., R) not negative.
    """
    t = torch.zeros_like(amount)
    for _ in range(ROUNDS):
        held = torch.minimum(height, t[..., None])
        missing = amount - torch.einsum("rd,...rd->...r", width, held)
        rising = torch.gt(height, t[..., None], out=held)
        slope = torch.einsum("rd,...rd->...r", width, rising)
        short = missing > 1e-6 * amount
        t = torch.where(short, t + missing / slope.clamp(min=TINY), t)
        if t.device.type == "cpu" and not bool((short & (slope > 0)).any()):
            break
    return t
