"""What the searches of complete verification share: images, their open problems, time, and examples.

A *problem* is a part of an image's ball. It is bounded; what is not proved is divided, until nothing is left,
or an adversarial example is found, or the time is over. Problems of all images share the batches.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from advkit.core.threat import Threat
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.linear import Bounder

HELD_OPEN = 256 << 20
"""Memory of open problems, in bytes, above which those nearest to a proof are taken first."""


@dataclass
class Problems:
    """Open problems."""

    root: Tensor
    """(S,) int64: what they are parts of."""
    bound: Tensor
    """(S,) float64: lower bound of the margin, net of all rounding."""

    def __len__(self) -> int:
        return len(self.root)

    def __getitem__(self, which: Tensor) -> Self:
        return replace(self, **{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def joined(self, other: Self) -> Self:
        """Both."""
        both = {f.name: torch.cat([getattr(p, f.name) for p in (self, other)]) for f in fields(self)}
        return replace(self, **both)

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))


@dataclass(frozen=True)
class Decision:
    """What became of an image."""

    row: int
    """Of the images."""
    margin: float
    """Lower bound of the margin, net of all rounding; above 0 the image is certified."""
    rounding: float
    """The deduction for the rounding of the model's own pass, the largest over the wrong classes."""
    example: Tensor | None
    """(C, H, W) float32: an adversarial example, which the model itself misclassifies."""
    problems: int
    """That were bounded."""
    seconds: float
    """Of the solver's time."""


P = TypeVar("P", bound=Problems)


class Search(ABC, Generic[P]):
    """Decides images of one network under one threat model.

    Args:
        bounder: of the network.
        threat: linf, l2 or l1.
        wrong: (N,) bool whether the model misclassifies images (N, C, H, W) of the classes (N,).
        timeout: seconds for each image, of the solver's own time.
        limit: number of problems for each image.
    """

    open: P
    image: Tensor
    """(R,) of each root."""
    margin: Tensor
    """(N,) the least bound of what is proved."""
    rounding: Tensor
    """(N,) see `Decision`."""

    def __init__(
        self,
        bounder: Bounder,
        threat: Threat,
        wrong: Callable[[Tensor, Tensor], Tensor],
        *,
        timeout: float = math.inf,
        limit: float = math.inf,
    ) -> None:
        self.bounder, self.threat, self.wrong = bounder, threat, wrong
        self.timeout, self.limit = timeout, limit
        self.last = len(bounder.fine) - 1

    @torch.no_grad()
    def decide(self, x: Tensor, label: Tensor) -> Iterator[Decision]:
        """Decides images (N, C, H, W) of the classes ``label`` (N,), each as soon as it can be."""
        begun, n = time.perf_counter(), len(x)
        self.x, self.label = x.to(self.bounder.device), label.to(self.bounder.device)
        self.ball = Ball(self.x, self.threat)
        self.example: dict[int, Tensor] = {}
        self.count, self.seconds = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.float64)
        self.decided = torch.zeros(n, dtype=torch.bool)
        self._begin()
        self.seconds += (time.perf_counter() - begun) / max(n, 1)
        yield from self._settled()
        while len(self.open):
            begun = time.perf_counter()
            chosen = self._chosen()
            taken = self.open[chosen]
            left = torch.bincount(chosen, minlength=len(self.open)) == 0
            self.open = self.open[left.nonzero()[:, 0]]
            self._divide(taken)
            self._spend(taken.root, begun)
            yield from self._settled()

    @property
    def facts(self) -> dict[str, float]:
        """Figures for people: images that are open, and subproblems a second."""
        return {
            "open": int((~self.decided).sum()),
            "subproblems/s": float(self.count.sum()) / max(float(self.seconds.sum()), 1e-9),
        }

    @abstractmethod
    def _begin(self) -> None:
        """Bounds the images."""

    @abstractmethod
    def _divide(self, parents: P) -> None:
        """Bounds the parts of problems."""

    @abstractmethod
    def _many(self) -> int:
        """Number of problems that are divided together."""

    def _spend(self, root: Tensor, begun: float) -> None:
        """Shares the time since ``begun`` among the images of the problems ``root``."""
        if len(root):
            share = torch.bincount(self.image[root], minlength=len(self.x)).double().cpu() / len(root)
            self.seconds += share * (time.perf_counter() - begun)

    def _settled(self) -> Iterator[Decision]:
        """The decisions on images that have become certain, or out of time."""
        image = self.image[self.open.root]
        left = torch.bincount(image, minlength=len(self.x)).cpu()
        for row in (~self.decided).nonzero()[:, 0].tolist():
            spent = self.seconds[row] >= self.timeout or self.count[row] >= self.limit
            if left[row] and not spent and row not in self.example:
                continue
            margin = self.margin[row]
            if left[row]:
                margin = torch.minimum(margin, self.open.bound[image == row].amin())
            self.decided[row] = True
            facts = float(self.rounding[row]), self.example.get(row), int(self.count[row])
            yield Decision(row, float(margin), *facts, float(self.seconds[row]))
        stay = ~self.decided.to(image.device)[image]
        self.open = self.open[stay.nonzero()[:, 0]]

    def _chosen(self) -> Tensor:
        """Positions of the next problems: of each image in turn, the one with the lowest bound."""
        many = self._many()
        if self.open.bytes > HELD_OPEN:
            return self.open.bound.argsort(descending=True)[:many]
        image = self.image[self.open.root]
        order = self.open.bound.argsort(stable=True)
        order = order[image[order].argsort(stable=True)]
        counts = torch.bincount(image, minlength=len(self.x))
        first = counts.cumsum(0) - counts
        turn = torch.arange(len(order), device=order.device) - first[image[order]]
        next_: Tensor = order[turn.argsort(stable=True)[:many]]
        return next_

    def _count(self, image: Tensor) -> None:
        """Counts problems of these images as bounded."""
        self.count += torch.bincount(image, minlength=len(self.x)).cpu()

    def _limit(self, image: Tensor, bound: Tensor) -> None:
        """Margins of images are at most the bounds of their problems that will not be divided."""
        for row in image.unique().tolist():
            self.margin[row] = torch.minimum(self.margin[row], bound[image == row].amin())

    def _try(self, points: Tensor, image: Tensor) -> None:
        """Keeps the points that are adversarial examples, once projected on the ball."""
        if not len(points):
            return
        near = self.threat.project(points.float(), self.x[image])
        good = self.wrong(near, self.label[image]) & self.threat.contains(near, self.x[image])
        for k in good.nonzero()[:, 0].tolist():
            self.example.setdefault(int(image[k]), near[k])
