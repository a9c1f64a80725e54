"""Verdicts of complete verification: attacks first, then branch and bound on what is left, then a longer
attack on what it leaves open."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from advkit.attacks.engine.oracle import query
from advkit.attacks.memetic import Memetic
from advkit.attacks.perturb import Perturbed, device_of, perturb
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.verify.bounds.curves import Curve
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.pooling import unpooled
from advkit.verify.bounds.read import read
from advkit.verify.bounds.relaxation import MaxPool, Relu
from advkit.verify.certification.bisection import Bisection
from advkit.verify.certification.branch import Branching
from advkit.verify.certification.result import CertifiedVerdict, finite
from advkit.verify.certification.search import Decision, Search

MEMORY = 256 << 20
"""Limit of the memory of a batch of problems, in bytes."""
FEW = 10
"""Inputs up to which boxes are halved. Parts half as wide in all D inputs are 2^D, so that signs of ReLUs are
better to split where inputs are many; on drawn networks of up to 150 ReLUs the two are level at about 12."""
MORE = 32
"""The same of networks whose other activations leave a gap that no sign closes."""
FIRST_SIGNS, HALVES = 0.05, 0.7
"""Shares of the time, where boxes are halved and signs split: each decides some networks soon that the other
does not decide at all."""
GROUP = 100
"""Images that share the batches of branch and bound."""
TOGETHER = 16
"""Open images that share the batches of the last attack."""
FIRST: dict[str, dict[str, int]] = {"pgd": {}, "apgd": {"targets": 9}}
"""Attacks that come before branch and bound, with their parameters. The second has targets:
without, a search follows the wrong class that leads at first, which need not be the one that can win."""
PILOT = 16
"""Ascents of the last attack that tell how long one takes."""

Found = tuple[CertifiedVerdict, Tensor | None, dict[str, float]]
"""A verdict, the adversarial example (C, H, W) of a broken image, and figures for people."""


class Completion:
    """Certifies or breaks images that bounds alone leave undecided.

    Args:
        model: a classifier in eval mode.
        graph: the same, as it was read.
        threat: linf, l2 or l1.
        timeout: seconds of branch and bound for each image, and at most about as many of the last attack.
        subproblems: number of subproblems for each image; None: any.
    """

    def __init__(
        self, model: Model, graph: Graph, threat: Threat, *, timeout: float, subproblems: int | None
    ) -> None:
        self.model, self.threat, self.timeout = model, threat, timeout
        device = device_of(model)
        bounder = Bounder(graph, device if device.type != "mps" else torch.device("cpu"), memory=MEMORY)
        self.limit = math.inf if subproblems is None else subproblems
        self.searches = [
            kind(bounder, threat, self._wrong, timeout=share * timeout, limit=share * self.limit)
            for kind, share in _kinds(bounder.fine, threat)
        ]

    def verdicts(self, images: Data, rows: Tensor) -> Iterator[Found]:
        """One for each of the ``rows`` (M,), as soon as it is known."""
        for some in rows.split(GROUP):
            left = yield from self._unbroken(images, some)
            if not len(left):
                continue
            part = images.take(left)
            opened: dict[int, Found] = {}
            for one in self._searched(part):
                if one[0].status != "undecided":
                    yield one
                    continue
                opened[one[0].id] = one
                if len(opened) == TOGETHER:
                    yield from self._attacked(part, opened)
                    opened = {}
            yield from self._attacked(part, opened)

    def _unbroken(self, images: Data, rows: Tensor) -> Generator[Found, None, Tensor]:
        """The ``rows`` (M,) that the first attacks do not break."""
        for attack, parameters in FIRST.items():
            if not len(rows):
                break
            part = images.take(rows)
            attacked = perturb(
                self.model, part, None, self.threat, attack, parameters=parameters, progress=False
            )
            yield from _broken(attacked, part)
            rows = rows[~attacked.success]
        return rows

    def _attacked(self, part: Data, opened: dict[int, Found]) -> Iterator[Found]:
        """The images (by id) that branch and bound left open, after another attack. A short one tells how
        many ascents take as long as branch and bound may."""
        if opened:
            each = yield from self._climbed(part, opened, PILOT)
            most = min(len(opened) * self.timeout / each, self.limit)
            if most > PILOT:
                yield from self._climbed(part, opened, most)
        yield from opened.values()

    def _climbed(self, part: Data, opened: dict[int, Found], most: float) -> Generator[Found, None, float]:
        """Those that so many ascents break, which are no longer open; the seconds of an ascent."""
        ascents = int(min(most, Memetic.Config().ascents, self.limit))
        those = part.take(torch.tensor([k for k, one in enumerate(part.ids.tolist()) if one in opened]))
        begun = time.perf_counter()
        attacked = perturb(
            self.model, those, None, self.threat, "memetic", parameters={"ascents": ascents}, progress=False
        )
        each = (time.perf_counter() - begun) / ascents
        for found in _broken(attacked, those):
            del opened[found[0].id]
            yield found
        return each

    def _searched(self, part: Data) -> Iterator[Found]:
        for one, facts in self.decisions(*part.batch(torch.arange(len(part)))):
            yield _verdict(one, part), None if one.example is None else one.example.cpu(), facts

    def decisions(self, x: Tensor, label: Tensor) -> Iterator[tuple[Decision, dict[str, float]]]:
        """Of images (N, C, H, W) of the classes ``label`` (N,), without attacks, and with figures for people.
        Each search begins with what those before it leave open."""
        left, before = [*range(len(x))], dict[int, Decision]()
        for number, search in enumerate(self.searches, 1):
            rows, left = left, []
            for found in search.decide(x[rows], label[rows]) if rows else ():
                one = _joined(before.get(rows[found.row]), replace(found, row=rows[found.row]))
                if one.example is None and one.margin <= 0 and number < len(self.searches):
                    before[one.row] = one
                    left.append(one.row)
                else:
                    yield one, search.facts

    def _wrong(self, x: Tensor, label: Tensor) -> Tensor:
        return query(self.model, x).argmax(1) != label


def _kinds(graph: Graph, threat: Threat) -> list[tuple[type[Search[Any]], float]]:
    """The searches, in order, each with its share of the time: of parts of the box, and of signs of ReLUs."""
    inputs = math.prod(graph.nodes[0].shape)
    if threat.norm != "linf" or inputs > MORE:
        return [(Branching, 1)]
    if not all(isinstance(graph.nodes[k].op, Relu) for k in graph.nonlinear()):
        return [(Bisection, 1)]
    if inputs > FEW:
        return [(Branching, 1)]
    return [(Branching, FIRST_SIGNS), (Bisection, HALVES), (Branching, 1 - FIRST_SIGNS - HALVES)]


def _joined(earlier: Decision | None, one: Decision) -> Decision:
    """What two searches together say of an image."""
    if earlier is None:
        return one
    return replace(
        one,
        margin=max(earlier.margin, one.margin),
        problems=earlier.problems + one.problems,
        seconds=earlier.seconds + one.seconds,
    )


def _verdict(one: Decision, part: Data) -> CertifiedVerdict:
    certified = one.example is None and one.margin > 0
    return CertifiedVerdict(
        id=int(part.ids[one.row]),
        label=int(part.labels[one.row]),
        status="certified" if certified else "undecided" if one.example is None else "broken",
        method="complete" if one.example is None else None,
        margin=finite(one.margin) if one.example is None else None,
        rounding=finite(one.rounding) if one.example is None else None,
        subproblems=one.problems,
    )


def gap_notes(model: Model, threat: Threat, what: str = "the images that are open") -> list[str]:
    """Notes for people on what no time closes, where branch and bound leaves something open."""
    graph = unpooled(read(model))
    gaps = [] if Bisection in dict(_kinds(graph, threat)) else list(_gaps(graph, threat))
    return [f"more time may not decide {what}: {', and '.join(gaps)}"] if gaps else []


def _gaps(graph: Graph, threat: Threat) -> Iterator[str]:
    kinds = {type(graph.nodes[k].op) for k in graph.nonlinear()}
    if Curve in kinds:
        yield "inputs of sigmoid and tanh are not split"
    if MaxPool in kinds:
        yield "poolings of more than 16 values, or of negative ones at an edge, are not split"
    if threat.norm != "linf" and Relu in kinds:
        yield f"parts without an open sign are not solved exactly in {threat.norm}"


def _broken(attacked: Perturbed, part: Data) -> Iterator[Found]:
    """The images that an attack broke."""
    for k in attacked.success.nonzero()[:, 0].tolist():
        verdict = CertifiedVerdict(id=int(part.ids[k]), label=int(part.labels[k]), status="broken")
        yield verdict, attacked.x[k], {}
