"""Verdicts of complete verification: an attack first, then branch and bound on what is left."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of, perturb
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.linear import Bounder
from advkit.verify.certification.branch import MEMORY, Branching
from advkit.verify.certification.result import CertifiedVerdict

GROUP = 100
"""Images that share the batches of branch and bound."""

Found = tuple[CertifiedVerdict, Tensor | None, dict[str, float]]
"""A verdict, the adversarial example (C, H, W) of a broken image, and figures for people."""


class Completion:
    """Certifies or breaks images that bounds alone leave undecided.

    Args:
        model: a classifier in eval mode.
        graph: the same, as it was read.
        threat: linf, l2 or l1.
        timeout: seconds of branch and bound for each image.
        subproblems: number of subproblems for each image; None: any.
    """

    def __init__(
        self, model: Model, graph: Graph, threat: Threat, *, timeout: float, subproblems: int | None
    ) -> None:
        self.model, self.threat = model, threat
        device = device_of(model)
        bounder = Bounder(graph, device if device.type != "mps" else torch.device("cpu"), memory=MEMORY)
        limit = math.inf if subproblems is None else subproblems
        self.branching = Branching(bounder, threat, self._wrong, timeout=timeout, limit=limit)

    def verdicts(self, images: Data, rows: Tensor) -> Iterator[Found]:
        """One for each of the ``rows`` (M,), as soon as it is known."""
        for some in rows.split(GROUP):
            x, label = images.batch(some)
            attacked = perturb(self.model, x, label, self.threat, progress=False)
            for k in attacked.success.nonzero()[:, 0].tolist():
                facts = (int(images.ids[some[k]]), int(label[k]))
                yield CertifiedVerdict(id=facts[0], label=facts[1], status="broken"), attacked.x[k], {}
            left = (~attacked.success).nonzero()[:, 0]
            if len(left):
                yield from self._searched(images.ids[some[left]].tolist(), x[left], label[left])

    def _searched(self, ids: list[int], x: Tensor, label: Tensor) -> Iterator[Found]:
        for one in self.branching.decide(x, label):
            certified = one.example is None and one.margin > 0
            verdict = CertifiedVerdict(
                id=ids[one.row],
                label=int(label[one.row]),
                status="certified" if certified else "undecided" if one.example is None else "broken",
                method="complete" if one.example is None else None,
                margin=one.margin if one.example is None else None,
                rounding=one.rounding if one.example is None else None,
                subproblems=one.problems,
            )
            yield verdict, None if one.example is None else one.example.cpu(), self.branching.facts

    def _wrong(self, x: Tensor, label: Tensor) -> Tensor:
        return query(self.model, x).argmax(1) != label
