"""Linear bounds: a linear function of a node is propagated back to the images, through linear lower and upper
bounds of every ReLU and max pooling (Zhang et al., CROWN, 2018; Singh et al., DeepPoly, 2019).

A *row* is one image with one linear function of one node's values. Rows of different images share a batch;
``index`` is the image of each. Only neurons that interval bounds leave undecided get rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Affine, Convolution
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.interval import ends
from advkit.verify.bounds.pooling import unpooled
from advkit.verify.bounds.relaxation import Lines, Relaxation, Relu
from advkit.verify.bounds.rounding import Float32, gamma, roundings
from advkit.verify.bounds.window import Step, Window, reach_images, widest, windowed_path

MEMORY = 64 << 20
"""Default limit of the memory of a batch of rows, in bytes."""
COPIES = 8
"""Tensors of the size of the widest node that a batch of rows holds at once."""
COARSE = 1e-2
"""Share of a neuron's interval up to which rounding is accepted; below it, its rows are in float32."""


@dataclass
class Bounds:
    """Bounds of every node on a batch of images, in float64 and widened for rounding."""

    ball: Ball
    lower: list[Tensor] = field(default_factory=list)
    """Each (N, *shape)."""
    upper: list[Tensor] = field(default_factory=list)
    reach: list[Tensor] = field(default_factory=list)
    """Each (N, *shape): the sum of absolute values over all paths from the images to a value."""
    relaxed: dict[int, Relaxation] = field(default_factory=dict)
    """By index, the linear relaxations of nodes that are not affine."""


def carried(
    graph: Graph,
    relaxed: Mapping[int, Relaxation],
    start: int,
    a: Tensor,
    index: Tensor,
    slopes: Mapping[int, Tensor] | None = None,
    kept: dict[int, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Lower bounds of linear functions of the node ``start``, linear in the images: coefficients
    (R, C, H, W) and constants (R,), these in float64; differentiable in ``slopes``.

    Args:
        graph: in the precision of ``a``.
        relaxed: by index, the linear relaxations of nodes that are not affine, in the same precision.
        start: index of the node.
        a: (R, *shape) coefficients.
        index: (R,) image of each row.
        slopes: by index of a ReLU, (R, *shape) slopes of its lower lines for each row.
        kept: gets the coefficients (R, *shape) of every node that is not affine.
    """
    pending = {start: a}
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for k in range(start, 0, -1):
        if k not in pending:
            continue
        a, node = pending.pop(k), graph.nodes[k]
        if isinstance(node.op, Affine):
            if node.op.offset is not None:
                total = total + (a * node.op.offset).flatten(1).sum(1, dtype=torch.float64)
            parts = node.op.transpose(a)
        else:
            if kept is not None:
                kept[k] = a
            through, constant = relaxed[k].back(a, index, slopes.get(k) if slopes else None)
            parts, total = (through,), total + constant
        for place, part in zip(node.inputs, parts, strict=True):
            pending[place] = pending[place] + part if place in pending else part
    return pending[0], total


def substitute(
    graph: Graph,
    relaxed: Mapping[int, Relaxation],
    ball: Ball,
    start: int,
    a: Tensor,
    index: Tensor,
    slopes: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """(R,) float64: the minima of what is `carried` to the images, on their balls."""
    linear, total = carried(graph, relaxed, start, a, index, slopes)
    return total + ball.least(linear, index)


def narrow(
    graph: Graph,
    relaxed: Mapping[int, Relaxation],
    ball: Ball,
    steps: Sequence[Step],
    window: Window,
    index: Tensor,
) -> Tensor:
    """(R,) float64, as `substitute`, for rows that are windows through the nodes ``steps``."""
    total = torch.zeros(len(index), dtype=torch.float64, device=index.device)
    for step in steps:
        node = graph.nodes[step.place]
        if isinstance(node.op, Affine):
            if node.op.offset is not None:
                total = total + (window.a * node.op.offset).flatten(1).sum(1, dtype=torch.float64)
            if isinstance(node.op, Convolution):
                window = window.convolved_back(node.op)
            else:
                (window.a,) = node.op.transpose(window.a)
        else:
            lines = relaxed[step.place]
            assert isinstance(lines, Lines)
            lower, upper, shift = (window.gathered(part, index) for part in lines.rows)
            negative = window.a.clamp(max=0)
            total = total + (negative * shift).flatten(1).sum(1, dtype=torch.float64)
            window.a = (window.a - negative) * lower + negative * upper
    last = graph.nodes[steps[-1].place].inputs[0]
    if last == 0:
        return total + ball.least_of(window.a, *(window.gathered(part, index) for part in ball.rows))
    return total + substitute(graph, relaxed, ball, last, window.whole(), index)


class Bounder:
    """Bounds the nodes of one network.

    Args:
        graph: the network.
        device: of the computation; it must support float64.
        memory: limit of the memory of a batch of rows, in bytes; it changes the result by rounding at most.
    """

    def __init__(self, graph: Graph, device: torch.device, *, memory: int = MEMORY) -> None:
        self.device, self.memory, graph = device, memory, unpooled(graph)
        self.fine, self.coarse = (graph.to(device, dtype) for dtype in (torch.float64, torch.float32))
        self.exact = graph.exact_on_boxes()
        # Elsewhere float32 may be computed in TF32 or bfloat16, which have no known error bound.
        self.strict = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
        self.widest = max(math.prod(node.shape) for node in graph.nodes)

    def interval(self, ball: Ball) -> Bounds:
        """Interval bounds."""
        return self._bounds(ball, rows=False)

    def linear(self, ball: Ball) -> Bounds:
        """Interval bounds, and linear bounds of every neuron that intervals leave undecided."""
        return self._bounds(ball, rows=True)

    def margins(self, bounds: Bounds, label: Tensor) -> Tensor:
        """(N, K) lower bounds of the true logit minus each logit, and 0 for the true one.

        Args:
            bounds: of all nodes.
            label: (N,) true classes.
        """
        n, classes = len(label), self.fine.classes
        index = torch.arange(n, device=self.device).repeat_interleave(classes)
        other = torch.arange(classes, device=self.device).repeat(n)
        wanted = other != label[index]
        margins = torch.zeros(n * classes, dtype=torch.float64, device=self.device)
        index, other = index[wanted], other[wanted]
        margins[wanted] = self.rows(bounds, index, label[index], other)
        return margins.view(n, classes)

    def off(self, bounds: Bounds, label: Tensor) -> Tensor:
        """(N, K) bound of the rounding error of the true logit minus each logit."""
        reach = bounds.reach[-1]
        return self._off(len(self.fine) - 1, torch.float64) * (reach + reach.gather(1, label[:, None]))

    def unsure(self, bounds: Bounds) -> Tensor:
        """(N,) number of ReLUs' inputs, those of poolings included, whose sign is open.

        Args:
            bounds: of all nodes.
        """
        found = torch.zeros(len(bounds.ball.x), dtype=torch.int64, device=self.device)
        for node in self.fine.nodes:
            if isinstance(node.op, Relu):
                low, high = (side[node.inputs[0]] for side in (bounds.lower, bounds.upper))
                found += node.op.open(low, high).flatten(1).sum(1)
        return found

    def rounding(self, bounds: Bounds, label: Tensor) -> Tensor:
        """(N, K) bounds of the rounding error of the model's own float32 pass, in the true logit minus each.

        Args:
            bounds: of all nodes.
            label: (N,) true classes.
        """
        errors = Float32(self.fine, bounds.lower, bounds.upper, self._parts)
        last, classes = len(self.fine) - 1, self.fine.classes
        found = []
        for part in self._parts(len(label) * classes, torch.float64):
            row = torch.arange(part.start, part.stop, device=self.device)
            index = row // classes
            a = differences(label[index], row % classes, classes, torch.float64)
            found.append(errors.of(last, a, index))
        return torch.cat(found).view(-1, classes)

    def rows(
        self,
        bounds: Bounds,
        index: Tensor,
        label: Tensor,
        other: Tensor,
        slopes: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """(R,) lower bounds of one logit minus another, net of rounding.

        Args:
            bounds: of all nodes.
            index: (R,) image of each row.
            label: (R,) the one logit.
            other: (R,) the other one.
            slopes: as in `substitute`, in float64.
        """
        last = len(self.fine) - 1
        found = []
        for part in self._parts(len(index), torch.float64):
            a = differences(label[part], other[part], self.fine.classes, torch.float64)
            some = None if slopes is None else {k: slope[part] for k, slope in slopes.items()}
            found.append(
                substitute(self.fine, bounds.relaxed, bounds.ball, last, a, index[part], some)
                - self._off(last, torch.float64)
                * (
                    bounds.reach[last][index[part], label[part]]
                    + bounds.reach[last][index[part], other[part]]
                )
            )
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64, device=self.device)

    def _bounds(self, ball: Ball, *, rows: bool) -> Bounds:
        bounds = Bounds(ball, [ball.lower], [ball.upper], [ball.size])
        coarse: dict[int, Relaxation] = {}
        for k, node in enumerate(self.fine.nodes[1:], 1):
            low, high = ends(node, *([side[i] for i in node.inputs] for side in (bounds.lower, bounds.upper)))
            if isinstance(node.op, Affine):
                reach = node.op.size(*(bounds.reach[i] for i in node.inputs))
                off = self._off(k, torch.float64) * reach
                low, high = low - off, high + off
                if node.also is not None:
                    pool, i = node.also
                    low = torch.maximum(low, pool.apply(bounds.lower[i]))
                    high = torch.minimum(high, pool.apply(bounds.upper[i]))
                if rows and (ball.norm != "linf" or k not in self.exact):
                    low, high = self._narrowed(bounds, coarse, k, low, high, reach)
            else:
                assert node.op is not None
                below, above = (side[node.inputs[0]] for side in (bounds.lower, bounds.upper))
                bounds.relaxed[k] = node.op.relaxed(below, above)
                coarse[k] = bounds.relaxed[k].to(torch.float32)
                reach = bounds.relaxed[k].reach(bounds.reach[node.inputs[0]])
            bounds.lower.append(low)
            bounds.upper.append(high)
            bounds.reach.append(reach)
        return bounds

    def _narrowed(
        self,
        bounds: Bounds,
        coarse: Mapping[int, Relaxation],
        k: int,
        low: Tensor,
        high: Tensor,
        reach: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Bounds of node ``k``, between ``low`` and ``high`` so far, with rows for undecided neurons."""
        undecided = self.fine.open(k, low, high)
        lows, highs, sizes = low.flatten(1).clone(), high.flatten(1).clone(), reach.flatten(1)
        index, neuron = undecided.flatten(1).nonzero(as_tuple=True)
        steps = windowed_path(self.fine, k)
        values = widest(steps) if reach_images(self.fine, steps) else self.widest
        cost = self._off(k, torch.float32) * sizes[index, neuron]
        rough = (cost < COARSE * (highs - lows)[index, neuron]) & self.strict
        for dtype, chosen in ((torch.float32, rough), (torch.float64, ~rough)):
            graph = self.coarse if dtype == torch.float32 else self.fine
            relaxed = coarse if dtype == torch.float32 else bounds.relaxed
            which = chosen.nonzero()[:, 0]
            for part in self._parts(len(which), dtype, 2 * values):
                image, place = index[which[part]], neuron[which[part]]
                count, both = len(place), (image.repeat(2), place.repeat(2))
                sign = torch.ones(2 * count, dtype=torch.float32, device=self.device)
                sign[count:] = -1.0
                if steps:
                    window = Window.at(both[1], sign, low.shape[1:], dtype)
                    found = narrow(graph, relaxed, bounds.ball, steps, window, both[0])
                else:
                    a = torch.zeros(2 * count, lows.shape[1], dtype=dtype, device=self.device)
                    a[torch.arange(2 * count, device=self.device), both[1]] = sign.to(dtype)
                    a = a.view(2 * count, *low.shape[1:])
                    found = substitute(graph, relaxed, bounds.ball, k, a, both[0])
                found = found - self._off(k, dtype) * sizes[both]
                lows[image, place] = torch.maximum(lows[image, place], found[:count])
                highs[image, place] = torch.minimum(highs[image, place], -found[count:])
        return lows.view_as(low), highs.view_as(high)

    def _off(self, k: int, dtype: torch.dtype) -> float:
        """Error of a bound of node ``k``, as a share of its reach."""
        return 4 * gamma(roundings(self.fine, k, dtype), dtype)

    def off_at(self, k: int) -> float:
        """Error of a bound of node ``k`` by rows in float64, as a share of its reach."""
        return self._off(k, torch.float64)

    def _parts(self, count: int, dtype: torch.dtype, values: int | None = None) -> Iterator[slice]:
        """Batches of rows that fit in memory; ``values`` is the width of a row at its widest node."""
        rows = self.fitting(dtype, values)
        return (slice(first, min(first + rows, count)) for first in range(0, count, rows))

    def fitting(self, dtype: torch.dtype, values: int | None = None) -> int:
        """Number of rows that fit in memory; ``values`` is the width of a row at its widest node."""
        return max(1, self.memory // (COPIES * (torch.finfo(dtype).bits // 8) * (values or self.widest)))


def differences(label: Tensor, other: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """(R, K) the linear functions: one logit minus another."""
    first, second = (torch.nn.functional.one_hot(k, classes).to(dtype) for k in (label, other))
    return first - second
