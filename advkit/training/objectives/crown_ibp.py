"""CROWN-IBP: linear bounds of the margins over intervals of everything before, while eps grows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advkit.core.threat import Threat
from advkit.training.certified import Bounded, Certified, CertifiedConfig
from advkit.training.objective import Batch, objective
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.interval import margins_at_last
from advkit.verify.bounds.linear import differences, substitute
from advkit.verify.bounds.relaxation import MaxPool, Relaxation, Relu


@objective(
    "crown-ibp",
    summary="ibp that starts with linear bounds (CROWN-IBP): more stable, cost grows with the classes",
    source="Zhang et al., Towards Stable and Efficient Training of Verifiably Robust Networks, ICLR 2020",
)
class CrownIbp(Certified):
    """Margins are beta times those of linear bounds and 1 - beta times those of intervals, where beta falls
    from 1 to 0 as eps grows (their beta_start 1, beta_end 0). Until then an image also costs a row for each
    class that is followed back through the network; from there on what it costs in `ibp`."""

    class Config(CertifiedConfig):
        """Parameters."""

    config: Config

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) by that mixture."""
        eps, beta = self.eps(batch), 1 - batch.growth(self.config.eps_warmup)
        lows, highs = seen.ends(x, eps)
        margins = margins_at_last(seen.graph, lows, highs, y)
        if beta == 0:
            return -margins
        with seen.arithmetic(x):
            lines = margins_by_lines(seen.graph, lows, highs, Ball(x, Threat("linf", eps)), y)
        return -(beta * lines + (1 - beta) * margins)


def margins_by_lines(graph: Graph, lows: list[Tensor], highs: list[Tensor], ball: Ball, y: Tensor) -> Tensor:
    """(N, K) lower bounds of the true logit minus each logit: linear functions followed back to the images
    (CROWN), over the ends of all nodes before the last; differentiable."""
    relaxed: dict[int, Relaxation] = {}
    for place in graph.nonlinear():
        node = graph.nodes[place]
        assert isinstance(node.op, Relu | MaxPool)
        relaxed[place] = node.op.relaxed(lows[node.inputs[0]], highs[node.inputs[0]])
    n, classes = len(y), graph.classes
    index = torch.arange(n, device=y.device).repeat_interleave(classes)
    other = torch.arange(classes, device=y.device).repeat(n)
    rows = differences(y[index], other, classes, lows[0].dtype)
    return substitute(graph, relaxed, ball, len(graph) - 1, rows, index).view(n, classes).float()
