"""The normal of a decision boundary, estimated from the decisions at random points around one on it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from advkit.attacks.attack import Rows
from advkit.attacks.engine.record import column
from advkit.attacks.parts.decision import DecisionAttack, DecisionState, any_row
from advkit.core import rng

PROBE, JUMP = 2, 3
"""Phases: asking around a point on the boundary; going along the normal that was found."""


@dataclass
class ProbingState(DecisionState):
    """Where each row stands on the boundary, and what it has heard there."""

    edge: Tensor
    """(R, C, H, W) a success close to the boundary."""
    sum: Tensor
    """(R, C, H, W) of all probes of this round, seen from ``edge``."""
    signed: Tensor
    """(R, C, H, W) of those that succeed, less those that fail."""
    hits: Tensor
    """(R,) successes less failures."""
    asked: Tensor
    """(R,) probes of this round."""
    round: Tensor
    """(R,) rounds, this one included."""
    normal: Tensor
    """(R, C, H, W) direction in which successes lie."""
    reach: Tensor
    """(R,) how far the next leap goes."""


P = TypeVar("P", bound=ProbingState)


class ProbingAttack(DecisionAttack[P]):
    """In every round: close in on the boundary, ask around, and leap along the normal."""

    spread: ClassVar[float]
    """Length of a probe as a share of the distance from the original."""

    def started(self, rows: Rows) -> dict[str, Any]:
        """The fields of `ProbingState` at the start: a random image."""
        fields, zero = super().started(rows), torch.zeros_like(rows.x0)
        count = torch.zeros_like(rows.label)
        return fields | {
            "edge": rows.x0.clone(),
            "sum": zero,
            "signed": zero.clone(),
            "hits": count,
            "asked": count,
            "round": count,
            "normal": zero.clone(),
            "reach": torch.zeros_like(fields["low"]),
        }

    def move(self, state: P, hit: Tensor, arrived: Tensor) -> None:
        """Probes, and the leaps that follow."""
        jumping, probing = state.phase == JUMP, state.phase == PROBE
        self._record_answers(state, hit, probing)
        self.jump(state, hit, jumping)
        arrived = self.arrive(state, arrived)
        edge = self.between(state, state.high)
        state.edge = torch.where(column(arrived, edge), edge, state.edge)
        self.probe(state, arrived)
        ready = probing & (state.asked >= self.probes(state.round))
        if any_row(ready):
            self._estimate(state, ready)
            state.phase = torch.where(ready, JUMP, state.phase)
            self.prepare_jump(state, ready)
        probing = state.phase == PROBE
        if any_row(probing):
            noise = self.noise(rng.step(state.rows.key, state.iteration + 1), state.edge)
            length = self.spread * (state.edge - state.rows.x0).flatten(1).norm(dim=1)
            x = self.placed(state, state.edge + column(length, noise) * noise).clamp_(0, 1)
            state.x = torch.where(column(probing, x), x, state.x)

    def probe(self, state: P, chosen: Tensor) -> None:
        """Begins a round of probes at ``edge``."""
        kept = column(~chosen, state.sum)
        state.sum, state.signed = state.sum * kept, state.signed * kept
        state.hits, state.asked = state.hits * ~chosen, state.asked * ~chosen
        state.round = state.round + chosen
        state.phase = torch.where(chosen, PROBE, state.phase)

    def _record_answers(self, state: P, hit: Tensor, probing: Tensor) -> None:
        sign = (2 * hit.int() - 1) * probing
        seen = state.x - state.edge
        state.sum = state.sum + column(probing, seen) * seen
        state.signed = state.signed + column(sign, seen) * seen
        state.hits, state.asked = state.hits + sign, state.asked + probing

    def _estimate(self, state: P, ready: Tensor) -> None:
        """The mean of the successful probes less that of the others, of length 1."""
        share = state.hits / state.asked.clamp(min=1)
        share = torch.where(share.abs() == 1, 0.0, share)  # where all agree, their mean has to do
        normal = state.signed - column(share, state.sum) * state.sum
        normal = normal / column(normal.flatten(1).norm(dim=1).clamp(min=1e-12), normal)
        state.normal = torch.where(column(ready, normal), normal, state.normal)

    @abstractmethod
    def probes(self, number: Tensor) -> Tensor:
        """(R,) probes of round ``number`` (R,), from 1."""

    @abstractmethod
    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """(R, C, H, W) random directions of length 1."""

    @abstractmethod
    def prepare_jump(self, state: P, ready: Tensor) -> None:
        """Sets ``x`` and ``reach`` of the first leap along ``normal``."""

    @abstractmethod
    def jump(self, state: P, hit: Tensor, jumping: Tensor) -> None:
        """What follows from a leap: closing in, another leap, or another round."""

    def placed(self, state: P, x: Tensor) -> Tensor:
        """(R, C, H, W) the probes to ask about, where ``x`` are the points that noise has led to."""
        return x

    def arrive(self, state: P, arrived: Tensor) -> Tensor:
        """(R,) bool: of the rows that have closed in, those that begin a round now."""
        return arrived
