"""Steps in l1 that share their length among the values with the largest gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.attacks.record import column


def changed(x: Tensor, x0: Tensor) -> Tensor:
    """(R,) how many values of each row differ."""
    return torch.ne(x, x0, out=torch.empty_like(x)).flatten(1).sum(1)


def sparse_ascent_(gradient: Tensor, share: Tensor) -> Tensor:
    """Steps of l1 length 1, in the memory of ``gradient``: equal amounts, with the gradient's signs, on its
    largest entries (Tramer and Boneh, NeurIPS 2019, section 3.3). A zero gradient gives a zero step.

    Args:
        gradient: (R, C, H, W).
        share: (R,) of the entries that move, at least one; of equal ones all do.
    """
    size = gradient.abs().flatten(1)
    values = size.shape[1]
    count = (share * values).ceil().long().clamp(1, values)
    most = int(count.max()) if size.device.type == "cpu" else values
    smallest = size.topk(most, dim=1).values.gather(1, count[:, None] - 1)
    gradient.sign_().mul_(torch.ge(size, smallest, out=size).view_as(gradient))
    moved = gradient.abs().flatten(1).sum(1).clamp_(min=1)
    return gradient.div_(column(moved, gradient))
