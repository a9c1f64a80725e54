"""Balls with a radius per row, and schedules and steps in them, for minimum-norm attacks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.attacks.engine.record import TensorRecord, column
from advkit.core.threat import Norm

NEWTON = 16
"""Newton steps at most for the threshold of an l1 projection."""


def annealed(iteration: Tensor, steps: int, first: float, last: float) -> Tensor:
    """(R,) ``first`` at iteration 0, decreasing to ``last`` along half a cosine over ``steps``."""
    return torch.cos(iteration * (math.pi / steps)).mul_((first - last) / 2).add_((first + last) / 2)


def length(vectors: Tensor) -> Tensor:
    """(R,) Euclidean norms, above 0 so that one can divide by them."""
    norms: Tensor = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    return norms.clamp_(min=1e-12)


def slope(gradient: Tensor, norm: Norm) -> Tensor:
    """(R,) dual norm of the gradient: the largest increase per unit of ``norm``, above 0."""
    order = {"linf": 1, "l2": 2}.get(norm, math.inf)
    steepest: Tensor = torch.linalg.vector_norm(gradient.flatten(1), order, dim=1)
    return steepest.clamp_(min=1e-12)


def fewest(gradient: Tensor, x: Tensor, rise: Tensor) -> Tensor:
    """(R,) the least number of entries of ``x`` that must change inside [0, 1] for a linear function with
    this gradient to increase by ``rise`` (R,)."""
    room = torch.where(gradient > 0, 1 - x, x)
    gains = room.mul_(gradient.abs()).flatten(1).sort(dim=1, descending=True).values
    return (gains.cumsum(1) < rise[:, None]).sum(1) + 1


def movable_(gradient: Tensor, x: Tensor) -> Tensor:
    """``gradient``, in place, without the entries that would move ``x`` out of [0, 1]."""
    return gradient.masked_fill_(x == (gradient > 0), 0)


def fill_(x: Tensor, x0: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """``x``, in place, moved to the edge of the ball of its row's radius and into [0, 1].

    A change that is too short is scaled up, one that is too long is projected. In l0, each row keeps the
    ``radius`` entries of its change that reduce the projection error most, after clamping.

    Args:
        x: (R, C, H, W) any points.
        x0: (R, C, H, W) centres, in [0, 1].
        radius: (R,) finite (l0: a whole number).
    """
    if norm == "l0":
        return _fewest_(x, x0, radius)
    change = x.sub_(x0)
    if norm == "l2":
        return change.mul_(column(radius / length(change), x)).add_(x0).clamp_(0, 1)
    flat = change.flatten(1)
    reached = flat.abs().amax(1) if norm == "linf" else flat.abs().sum(1)
    change.mul_(column((radius / reached.clamp_(min=1e-12)).clamp_(min=1), x))
    if norm == "linf":
        limit = column(radius, x)
        return change.clamp_(-limit, limit).add_(x0).clamp_(0, 1)
    return _soften_(change, radius).add_(x0).clamp_(0, 1)


def _soften_(change: Tensor, radius: Tensor) -> Tensor:
    """The nearest changes of l1 norm ``radius``: soft thresholding (Duchi et al.,
    ICML 2008). The threshold is the root of a convex, piecewise linear function, which Newton's method
    approaches from below."""
    size = change.flatten(1).abs()
    threshold = torch.zeros_like(radius)
    for _ in range(NEWTON):
        above = (size - threshold[:, None]).clamp_(min=0)
        excess = (above.sum(1) - radius).clamp_(min=0)
        threshold = threshold + excess / above.count_nonzero(1).clamp_(min=1)
        if change.device.type == "cpu" and not (excess > 1e-6 * radius).any():
            break
    limit = column(threshold, change)
    return change.sub_(change.clamp(-limit, limit))


def _fewest_(x: Tensor, x0: Tensor, radius: Tensor) -> Tensor:
    """The nearest points inside [0, 1] that differ from ``x0`` in ``radius`` entries."""
    boxed = x.clamp(0, 1)
    gain = ((x - x0).square_() - (x - boxed).square_()).flatten(1)
    size = gain.shape[1]
    # Reading the number to rank synchronises with the device, so only the CPU does it.
    most = int(radius.max()) if x.device.type == "cpu" else size
    ranked = gain.topk(min(max(most, 1), size), dim=1).values
    last = ranked.gather(1, (radius.long() - 1).clamp_(0, ranked.shape[1] - 1)[:, None])
    kept = (gain >= last) & (radius[:, None] > 0)
    return x.copy_(torch.where(kept.view_as(x), boxed, x0))


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


PROGRESS = 0.9999
"""A trial ends early where a tenth of its iterations leaves more than this share of its lowest objective."""


@dataclass
class Trials(TensorRecord):
    """The binary search of each row."""

    constant: Tensor
    """(R,) weight of success in this trial."""
    low: Tensor
    """(R,) largest weight that failed."""
    high: Tensor
    """(R,) smallest weight that succeeded; infinite before any."""
    number: Tensor
    """(R,) finished trials."""
    iteration: Tensor
    """(R,) steps taken in this trial."""
    won: Tensor
    """(R,) bool: this trial has succeeded."""
    lowest: Tensor
    """(R,) lowest objective of this trial."""
    checked: Tensor
    """(R,) the lowest at the last check for early ending."""

    @classmethod
    def first(cls, like: Tensor, constant: float) -> Trials:
        """Before the first step of ``like.shape[0]`` rows."""
        weight = torch.full((len(like),), constant, device=like.device)
        zero, none = torch.zeros_like(weight), torch.zeros_like(weight, dtype=torch.int64)
        endless = zero + torch.inf
        return cls(weight, zero, endless, none, none, none.bool(), endless, endless)

    def after(self, won: Tensor, objective: Tensor, iterations: int) -> tuple[Trials, Tensor]:
        """(the trials after a step, (R,) bool: a new trial begins).

        Args:
            won: (R,) bool: the step found a success.
            objective: (R,) the minimised sum at this step.
            iterations: of a trial.
        """
        won = won | self.won
        check = self.iteration % max(iterations // 10, 1) == 0
        lowest = torch.minimum(objective, self.lowest)
        over = (self.iteration + 1 >= iterations) | (check & (lowest > PROGRESS * self.checked))
        high = torch.where(over & won, torch.minimum(self.high, self.constant), self.high)
        low = torch.where(over & ~won, torch.maximum(self.low, self.constant), self.low)
        chosen = torch.where(high.isfinite(), (low + high) / 2, 10 * self.constant)
        return Trials(
            torch.where(over, chosen, self.constant),
            low,
            high,
            self.number + over,
            torch.where(over, 0, self.iteration + 1),
            won & ~over,
            torch.where(over, torch.inf, lowest),
            torch.where(over, torch.inf, torch.where(check, lowest, self.checked)),
        ), over
