"""Linear programmes: the least of a linear function on a box, under linear constraints."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PENALTIES = (1e3, 1e7)
"""Price of breaking the constraints, in units of the function's range; the smallest that suffices is kept."""


def lowest(
    function: Tensor, rows: Tensor, ends: Tensor, low: Tensor, high: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The points (D,) where ``function @ x`` is least on a box, with ``rows @ x + ends >= 0``, and the
    multipliers (M,) of the constraints; one of each for every price at which a solver finds them. Without a
    point inside, the multipliers show that there is none, up to the price. All in float64.

    Args:
        function: (D,)
        rows: (M, D)
        ends: (M,)
        low: (D,)
        high: (D,)
    """
    from scipy.optimize import linprog

    width = high - low
    size = (rows.abs() @ width + ends.abs()).clamp(min=torch.finfo(torch.float64).tiny)
    span = float(function.abs() @ width) or 1.0
    sides = torch.cat([-rows / size[:, None], -torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    box = np.stack([np.append(low.numpy(), 0.0), np.append(high.numpy(), np.inf)], 1)
    found = []
    for price in PENALTIES:
        costs = np.append((function / span).numpy(), price)
        solved = linprog(costs, sides.numpy(), (ends / size).numpy(), bounds=box)
        if solved.status == 0:
            multipliers = torch.from_numpy(-solved.ineqlin.marginals).clamp(min=0) * span / size
            found.append((torch.from_numpy(solved.x[:-1]), multipliers))
    return found
