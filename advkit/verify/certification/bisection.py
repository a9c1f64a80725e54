"""Complete verification: branch and bound over the inputs, for networks that have few of them.

A *problem* is a part of an image's box. It gets linear bounds of its own, those of hidden neurons included,
in float64 and widened for rounding. What is not proved is halved at the middle of the input that has most
part in the linear bound, by slope times width (Wang et al., ReluVal, USENIX Security 2018; Bunel et al.,
NeurIPS 2018). Linear bounds of any activation become exact as parts shrink, of sigmoid, tanh and max pooling
as of ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from advkit.verify.bounds.ball import Box
from advkit.verify.bounds.linear import carried, differences
from advkit.verify.certification.search import Problems, Search

COPIES = 10
"""Tensors of the size of all nodes that a batch of parts holds at once."""
MOST = 1024
"""Parts in a batch; larger ones are no faster, and see less of what the others find."""
LEAST = 1e-3
"""Slope, relative to the largest of a part, that an input counts with at least: the lower line of a ReLU may
be flat where the function is not."""


@dataclass
class Parts(Problems):
    """Open parts of boxes; the roots are the images."""

    margins: Tensor
    """(S, K) float64: lower bounds of the margins, net of all rounding; inf for the true class."""
    low: Tensor
    """(S, C, H, W) float64 ends."""
    high: Tensor
    """(S, C, H, W) float64 ends."""
    halved: Tensor
    """(S,) int64: the input to halve."""


class Bisection(Search[Parts]):
    """Halves boxes; see `Search`. The norm is linf."""

    def _begin(self) -> None:
        self.image = torch.arange(len(self.x), device=self.x.device)
        true = one_hot(self.label, self.bounder.fine.classes).bool()
        margins = torch.full(true.shape, -math.inf, dtype=torch.float64, device=self.x.device)
        self.margin = margins.new_full((len(self.x),), math.inf)
        self.rounding, whole = margins.new_zeros(len(self.x)), self.image
        self.open = Parts(
            whole,
            self.margin,
            margins.masked_fill(true, math.inf),
            self.ball.lower,
            self.ball.upper,
            torch.zeros_like(whole),
        )
        roots, self.open = self.open, self.open[whole[:0]]
        self._bound(roots)

    def _many(self) -> int:
        values = sum(math.prod(node.shape) for node in self.bounder.fine.nodes)
        return max(1, min(MOST, self.bounder.memory // (8 * COPIES * values)) // 2)

    def _divide(self, parents: Parts) -> None:
        rows = torch.arange(len(parents), device=self.x.device)
        flat = [side.flatten(1) for side in (parents.low, parents.high)]
        middle = (flat[0] + flat[1])[rows, parents.halved] / 2
        inside = (flat[0][rows, parents.halved] < middle) & (middle < flat[1][rows, parents.halved])
        self._limit(parents.root[~inside], parents.bound[~inside])
        parents, middle = parents[inside], middle[inside]
        rows = rows[: len(parents)]
        below, above = parents[rows], parents[rows]
        below.high.flatten(1)[rows, parents.halved] = middle
        above.low.flatten(1)[rows, parents.halved] = middle
        if len(parents):
            self._bound(below.joined(above))

    def _bound(self, parts: Parts) -> None:
        """Bounds new parts, tries points of those that are not proved, and keeps them."""
        for part in self._batches(parts):
            self._count(part.root)
            bounds = self.bounder.linear(Box(part.low, part.high))
            label = self.label[part.root]
            rounding = self.bounder.rounding(bounds, label)
            margins = self.bounder.margins(bounds, label) - rounding
            part.margins = torch.where(margins > part.margins, margins, part.margins)  # also of NaN
            part.bound, other = part.margins.min(1)
            self._limit(part.root[part.bound > 0], part.bound[part.bound > 0])
            self.rounding.scatter_reduce_(0, part.root, rounding.amax(1), "amax")
            rest = (~(part.bound > 0)).nonzero()[:, 0]
            if not len(rest):
                continue
            classes = self.bounder.fine.classes
            a = differences(label[rest], other[rest], classes, torch.float64)
            slopes, _ = carried(self.bounder.fine, bounds.relaxed, self.last, a, rest)
            part = part[rest]
            corner = torch.where(slopes > 0, part.low, part.high)
            self._try(torch.cat([(part.low + part.high) / 2, corner]), part.root.repeat(2))
            size = slopes.abs().flatten(1)
            size = size.clamp(min=LEAST * size.amax(1, keepdim=True))
            part.halved = (size * (part.high - part.low).flatten(1)).argmax(1)
            self.open = self.open.joined(part)

    def _batches(self, parts: Parts) -> Iterator[Parts]:
        return (
            parts[rows] for rows in torch.arange(len(parts), device=self.x.device).split(2 * self._many())
        )
