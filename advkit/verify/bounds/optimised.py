"""Linear bounds with optimised lower slopes of ReLUs (Xu et al., alpha-CROWN, ICLR 2021).

Any slope between the two of a ReLU is sound, so each row optimises its own by Adam, in float32. The bounds
are then recomputed in float64. Bounds of hidden neurons stay unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.interval import ends
from advkit.verify.bounds.linear import Bounder, Bounds, differences, substitute
from advkit.verify.bounds.relaxation import Lines, Relaxation, Relu
from advkit.verify.bounds.window import reach_images, windowed_path

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
        best = ascended(value, start, slopes_between(bounder.fine, free), needed[rows], steps)
        again = bounder.rows(bounds, *mine, {k: slope.double() for k, slope in best.items()})
        found[rows] = torch.maximum(found[rows], again)
    return found


def tighten(bounder: Bounder, bounds: Bounds, *, steps: int = STEPS) -> None:
    """Tightens the bounds of hidden neurons that are undecided, by optimised slopes. Neurons whose
    windows reach the images stay as they are: these bound them cheaply, and there are many.

    Args:
        bounder: of the network.
        bounds: of all nodes, by `Bounder.linear`; changed in place.
        steps: of the search.
    """
    for k, node in enumerate(bounder.fine.nodes):
        if isinstance(node.op, Affine):
            if not reach_images(bounder.fine, windowed_path(bounder.fine, k)):
                _tighten(bounder, bounds, k, steps)
        elif node.op is not None:
            low, high = (side[node.inputs[0]] for side in (bounds.lower, bounds.upper))
            bounds.relaxed[k] = node.op.relaxed(low, high)
            bounds.lower[k], bounds.upper[k] = ends(node, [low], [high])


def _tighten(bounder: Bounder, bounds: Bounds, k: int, steps: int) -> None:
    free = [i for i in bounds.relaxed if i < k and isinstance(bounder.fine.nodes[i].op, Relu)]
    index, neuron = bounder.fine.open(k, bounds.lower[k], bounds.upper[k]).flatten(1).nonzero(as_tuple=True)
    if not free or not len(index):
        return
    low, high = (side[k].flatten(1) for side in (bounds.lower, bounds.upper))
    off = bounder.off_at(k) * bounds.reach[k].flatten(1)[index, neuron]
    relaxed = {i: one.to(torch.float32) for i, one in bounds.relaxed.items()}
    for sign, side in ((1.0, low), (-1.0, high)):
        for rows in torch.arange(len(index), device=low.device).split(
            bounder.fitting(torch.float32, HELD * bounder.widest)
        ):
            image, place = index[rows], neuron[rows]
            a = torch.zeros(len(rows), low.shape[1], dtype=torch.float32, device=low.device)
            a[torch.arange(len(rows), device=low.device), place] = sign
            a = a.view(-1, *bounder.fine.nodes[k].shape)

            def value(
                which: Tensor, slopes: dict[int, Tensor], a: Tensor = a, image: Tensor = image
            ) -> Tensor:
                return substitute(bounder.coarse, relaxed, bounds.ball, k, a[which], image[which], slopes)

            start = {i: _lines(relaxed[i])[image] for i in free}
            needed = torch.zeros(len(rows), dtype=torch.float64, device=low.device)
            best = ascended(value, start, slopes_between(bounder.fine, free), needed, steps)
            fine = {i: slope.double() for i, slope in best.items()}
            found = substitute(bounder.fine, bounds.relaxed, bounds.ball, k, a.double(), image, fine)
            found = found - off[rows]
            side[image, place] = sign * torch.maximum(sign * side[image, place], found)


def _lines(relaxed: Relaxation) -> Tensor:
    assert isinstance(relaxed, Lines)
    return relaxed.lower


def slopes_between(graph: Graph, relus: Iterable[int]) -> dict[int, tuple[float, float]]:
    """By index of a ReLU, the slopes between which those of its lower lines are sound."""
    between = {}
    for k in relus:
        op = graph.nodes[k].op
        assert isinstance(op, Relu)
        between[k] = (op.slope, 1.0)
    return between


def ascended(
    value: Callable[[Tensor, dict[int, Tensor]], Tensor],
    start: Mapping[int, Tensor],
    between: Mapping[int, tuple[float, float]],
    needed: Tensor,
    steps: int,
) -> dict[int, Tensor]:
    """The variables (R, ...) at which the value of each row was highest, by the keys of ``start``.

    Args:
        value: (r,) of the rows ``which`` (r,), at their variables.
        start: (R, ...) each.
        between: the least and the largest that each may become.
        needed: (R,) sufficient values, at which rows are dropped.
        steps: of Adam.
    """
    best = {k: slope.clone() for k, slope in start.items()}
    peak = torch.full_like(needed, -torch.inf, dtype=torch.float64)
    live = torch.arange(len(needed), device=needed.device)
    now = {k: slope.detach() for k, slope in start.items()}
    mean, square = ({k: torch.zeros_like(slope) for k, slope in start.items()} for _ in range(2))
    for step in range(1, steps + 1):
        with torch.enable_grad():
            leaves = {k: slope.requires_grad_(True) for k, slope in now.items()}
            reached = value(live, leaves)
            slants = torch.autograd.grad(reached.sum(), list(leaves.values()), materialize_grads=True)
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
            now[k] = (slope + rate / (1 - 0.9**step) * mean[k] / size).clamp(*between[k])
        if step % LOOK == 0:
            stay = peak[live] <= needed[live] + SPARE * needed[live].abs()
            if not stay.any():
                break
            live = live[stay]
            for states in (now, mean, square):
                states.update({k: state[stay] for k, state in states.items()})
    return best
