"""Lower bounds of margins on a batch of images, by one method or by each in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from advkit.core.threat import Threat
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.interval import margins_at_last
from advkit.verify.bounds.linear import MEMORY, Bounder, Bounds
from advkit.verify.bounds.optimised import optimised_rows
from advkit.verify.bounds.rounding import float32_error
from advkit.verify.certification.settings import Method

By = Literal["interval", "linear", "optimised"]
"""From the cheapest to the tightest."""
METHODS: tuple[By, ...] = get_args(By)


@dataclass
class Proof:
    """The certified margins of a batch of images."""

    margin: Tensor
    """(N,) float64: lower bound, on the ball, of the true logit minus the largest other, less the rounding
    errors of the bounds and of the model's own float32 pass; above 0 the image is certified."""
    rounding: Tensor
    """(N,) the deduction for the rounding of the model's own pass, at the decisive logit."""
    method: Tensor
    """(N,) int64: index in `METHODS` of the method that gave the margin."""


class Prover:
    """Certifies images of one network under one threat model.

    Args:
        graph: the network.
        threat: linf, l2 or l1.
        method: one, or all in turn.
        device: of the computation, in float64; the CPU replaces one that lacks it.
        memory: limit of the memory of a batch of rows, in bytes.
    """

    def __init__(
        self, graph: Graph, threat: Threat, method: Method, device: torch.device, *, memory: int = MEMORY
    ) -> None:
        self.threat, self.classes = threat, graph.classes
        self.methods = METHODS if method == "auto" else (method,)
        self.bounder = Bounder(graph, device if device.type != "mps" else torch.device("cpu"), memory=memory)

    @torch.no_grad()
    def prove(self, x: Tensor, label: Tensor) -> Proof:
        """Certified margins of images (N, C, H, W) of the classes ``label`` (N,)."""
        x, label = x.to(self.bounder.device), label.to(self.bounder.device)
        nothing = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        proof = Proof(nothing, torch.zeros_like(nothing), torch.zeros_like(label))
        if "interval" in self.methods:
            ball = Ball(x, self.threat)
            bounds = self.bounder.interval(ball)
            net, rounding = self._net(bounds, label, self._at_last(bounds, label))
            self._learn(proof, torch.arange(len(x), device=x.device), net, rounding, "interval")
        left = (proof.margin <= 0).nonzero()[:, 0]
        if self.methods != ("interval",) and len(left):
            self._by_rows(proof, left, x[left], label[left])
        return proof

    def _by_rows(self, proof: Proof, left: Tensor, x: Tensor, label: Tensor) -> None:
        bounds = self.bounder.linear(Ball(x, self.threat))
        margins = self.bounder.margins(bounds, label)
        rounding = self.bounder.rounding(bounds, label)
        by: By = "linear" if "linear" in self.methods else "optimised"
        self._learn(proof, left, *self._lowest(margins - rounding, rounding, label), by)
        if "optimised" not in self.methods:
            return
        image, other = ((margins <= rounding) & ~_true(label, self.classes)).nonzero(as_tuple=True)
        if len(image):
            needed = rounding[image, other]
            margins[image, other] = optimised_rows(self.bounder, bounds, image, label[image], other, needed)
            self._learn(proof, left, *self._lowest(margins - rounding, rounding, label), "optimised")

    def _at_last(self, bounds: Bounds, label: Tensor) -> Tensor:
        """Margins by interval bounds, less their own rounding error."""
        margins = margins_at_last(self.bounder.fine, bounds.lower, bounds.upper, label)
        return margins - self.bounder.off(bounds, label)

    def _net(self, bounds: Bounds, label: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
        error = float32_error(self.bounder.fine, bounds.lower, bounds.upper)
        rounding = error + error.gather(1, label[:, None])
        return self._lowest(margins - rounding, rounding, label)

    def _lowest(self, net: Tensor, rounding: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) the smallest margin of each image, and the rounding error deducted from it."""
        lowest, place = net.masked_fill(_true(label, self.classes), torch.inf).min(1)
        return lowest, rounding.gather(1, place[:, None])[:, 0]

    def _learn(self, proof: Proof, which: Tensor, net: Tensor, rounding: Tensor, by: By) -> None:
        better = net > proof.margin[which]
        rows = which[better]
        proof.margin[rows], proof.rounding[rows] = net[better], rounding[better]
        proof.method[rows] = METHODS.index(by)


def _true(label: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(label, classes).bool()
