"""Projection onto l1 balls inside [0, 1], with a radius for each row."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 24
"""Most rounds of the search for a threshold: five are usual, and fifteen are rare. Those that need more,
because changes are a thousand times larger than the box, end inside the ball too."""
MARGIN = 1e-5
"""Share of the radius that is left unused, for the rounding of sums; half of it is the threshold's error."""


def project_(x: Tensor, x0: Tensor, radius: Tensor) -> Tensor:
    """The nearest points of the balls inside [0, 1], in the memory of ``x``.

    Every change loses the same amount, the threshold, or vanishes, or ends at the edge of the box (Croce
    and Hein, ICML 2021, proposition 2.1).

    Args:
        x: (N, ...) any points.
        x0: (N, ...) centres, in [0, 1].
        radius: (N,) of the balls.
    """
    change = x.sub_(x0)
    sign = change.sign()
    room = torch.gt(change, 0, out=torch.empty_like(change)).sub_(x0).mul_(sign).relu_()
    change = _fitted(change.abs().flatten(1), room.flatten(1), radius).view(x.shape).mul_(sign)
    torch.add(change, x0, out=x)
    over = torch.sub(x, x0, out=room).abs_().flatten(1).sum(1) / radius - 1
    if x.device.type == "cpu" and not bool((over > 0).any()):
        return x
    # Rounding made too much of many small changes of large values: so they shrink by twice as much.
    return torch.addcmul(x0, change, (1 - 2 * over.clamp(min=0)).view(-1, *[1] * (x.dim() - 1)), out=x)


def _fitted(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """(N, D) sizes less a threshold, clamped to [0, room], such that they sum to the radius at most.

    The sum is a falling, piecewise linear function of the threshold. Newton's method finds its root, and
    halves the bracket where a step would leave it. Arithmetic on masks is done in floats, since PyTorch
    is several times slower on booleans.
    """
    low, high = torch.zeros_like(radius), size.amax(1)
    threshold, target = low, radius * (1 - MARGIN)
    fitted = torch.minimum(size, room)
    done = fitted.sum(1) <= radius
    left, free = torch.empty_like(size), torch.empty_like(size)
    for _ in range(ROUNDS):
        if size.device.type == "cpu" and bool(done.all()):
            break
        torch.sub(size, threshold[:, None], out=left).relu_()
        torch.minimum(left, room, out=fitted)
        excess = fitted.sum(1) - target
        slope = torch.lt(left, room, out=free).mul_(left.sign_()).sum(1)
        done = done | (excess.abs() <= MARGIN / 2 * radius)
        low = torch.where(excess > 0, threshold, low)
        high = torch.where(excess > 0, high, threshold)
        newton = threshold + excess / slope
        newton = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        threshold = torch.where(done, threshold, newton)
    threshold = torch.where(done, threshold, high)
    return torch.minimum(torch.sub(size, threshold[:, None], out=left).relu_(), room, out=fitted)
