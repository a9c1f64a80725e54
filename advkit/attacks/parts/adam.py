"""Adam with a step count per row (Kingma and Ba, ICLR 2015, algorithm 1)."""

from __future__ import annotations

from torch import Tensor

from advkit.attacks.engine.record import column

MEAN, SQUARE, TINY = 0.9, 0.999, 1e-8
"""Decay of the mean gradient and of its square, and the term added to the root."""


def adam_(mean: Tensor, square: Tensor, gradient: Tensor, count: Tensor) -> Tensor:
    """(R, C, H, W) the ascent step at learning rate 1; updates ``mean`` and ``square``.

    Args:
        mean: (R, C, H, W) running mean of the gradients, 0 at first.
        square: (R, C, H, W) running mean of their squares, 0 at first.
        gradient: (R, C, H, W) at this step.
        count: (R,) steps, this one included.
    """
    mean.lerp_(gradient, 1 - MEAN)
    square.mul_(SQUARE).addcmul_(gradient, gradient, value=1 - SQUARE)
    unbiased = (1 - SQUARE**count).sqrt_()
    root = square.sqrt().div_(column(unbiased, gradient)).add_(TINY)
    return mean.div(root).div_(column(1 - MEAN**count, gradient))
