"""Linear bounds with optimised lower slopes of ReLUs (Xu et al., alpha-CROWN, ICLR 2021).

Any slope between the two of a ReLU is sound, so each row optimises its own by Adam, in float32. The bounds
are then recomputed in float64. Bounds of hidden neurons stay unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advkit.verify.bounds.linear import Bounder, Bounds, differences, substitute
from advkit.verify.bounds.relaxation import Lines, Relaxation, Relu

STEPS = 30
RATE = 0.2
"""Of Adam; slopes lie in [0, 1]."""
DECAY = 0.96
"""Of the rate, from step to step."""
LOOK = 5
"""Interval of steps at which proved rows are dropped."""
SPARE = 0.1
"""Relative margin above the needed bound, so that float64 confirms the result of float32."""
HELD = 6
"""Memory of a step with gradients, relative to a pass without."""


def optimised_rows(
    bounder: Bounder,
    bounds: Bounds,
    index: Tensor,
    label: Tensor,
    other: Tensor,
    needed: Tensor,
    *,
    steps: int = STEPS,
) -> Tensor:
    """(R,) lower bounds of one logit minus another, net of rounding; never below those of `Bounder.rows`.

    Args:
        bounder: of the network.
        bounds: of all nodes.
        index: (R,) image of each row.
        label: (R,) the one logit.
        other: (R,) the other one.
        needed: (R,) sufficient bounds; optimisation of a row stops there.
        steps: of the search.
    """
    found = bounder.rows(bounds, index, label, other)
    free = [k for k in bounds.relaxed if isinstance(bounder.fine.nodes[k].op, Relu)]
    if not free:
        return found
    relaxed = {k: one.to(torch.float32) for k, one in bounds.relaxed.items()}
    for rows in (
        (found <= needed).nonzero()[:, 0].split(bounder.fitting(torch.float32, HELD * bounder.widest))
    ):
        mine = (index[rows], label[rows], other[rows])
        a = differences(mine[1], mine[2], bounder.fine.classes, torch.float32)

        def value(which: Tensor, slopes: dict[int, Tensor], a: Tensor = a, image: Tensor = mine[0]) -> Tensor:
            last = len(bounder.coarse) - 1
            return substitute(bounder.coarse, relaxed, bounds.ball, last, a[which], image[which], slopes)

        start = {k: _lines(relaxed[k])[mine[0]] for k in free}
        lowest = {k: _slope(bounder, k) for k in free}
        best = _ascended(value, start, lowest, needed[rows], steps)
        again = bounder.rows(bounds, *mine, {k: slope.double() for k, slope in best.items()})
        found[rows] = torch.maximum(found[rows], again)
    return found


def _lines(relaxed: Relaxation) -> Tensor:
    assert isinstance(relaxed, Lines)
    return relaxed.lower


def _slope(bounder: Bounder, k: int) -> float:
    op = bounder.fine.nodes[k].op
    assert isinstance(op, Relu)
    return op.slope


def _ascended(
    value: Callable[[Tensor, dict[int, Tensor]], Tensor],
    start: dict[int, Tensor],
    lowest: dict[int, float],
    needed: Tensor,
    steps: int,
) -> dict[int, Tensor]:
    """By index, the slopes (R, *shape) at which the value of each row was highest.

    Args:
        value: (r,) of the rows ``which`` (r,), at their slopes.
        start: slopes (R, *shape).
        lowest: the smallest slope allowed; the largest is 1.
        needed: (R,) sufficient values, at which rows are dropped.
        steps: of Adam.
    """
    best = {k: slope.clone() for k, slope in start.items()}
    peak = torch.full_like(needed, -torch.inf, dtype=torch.float64)
    live, now = torch.arange(len(needed), device=needed.device), dict(start)
    mean, square = ({k: torch.zeros_like(slope) for k, slope in start.items()} for _ in range(2))
    for step in range(1, steps + 1):
        with torch.enable_grad():
            leaves = {k: slope.requires_grad_(True) for k, slope in now.items()}
            reached = value(live, leaves)
            slants = torch.autograd.grad(reached.sum(), list(leaves.values()))
        reached = reached.detach()
        higher = reached > peak[live]
        peak[live] = torch.maximum(peak[live], reached)
        rate = RATE * DECAY ** (step - 1)
        for (k, slope), slant in zip(leaves.items(), slants, strict=True):
            slope = slope.detach()
            best[k][live[higher]] = slope[higher]
            mean[k] = 0.9 * mean[k] + 0.1 * slant
            square[k] = 0.999 * square[k] + 0.001 * slant.square()
            size = (square[k] / (1 - 0.999**step)).sqrt() + 1e-12
            now[k] = (slope + rate / (1 - 0.9**step) * mean[k] / size).clamp(lowest[k], 1.0)
        if step % LOOK == 0:
            stay = peak[live] <= needed[live] + SPARE * needed[live].abs()
            if not stay.any():
                break
            live = live[stay]
            for states in (now, mean, square):
                states.update({k: state[stay] for k, state in states.items()})
    return best
