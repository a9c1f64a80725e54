"""The normal of a decision boundary, estimated from decisions at random points around a point on it."""

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
"""Phases: probes around a point on the boundary; a jump along the estimated normal."""


@dataclass
class ProbingState(DecisionState):
    """The boundary point of each row, and the results of its probes."""

    edge: Tensor
    """(R, C, H, W) a success close to the boundary."""
    sum: Tensor
    """(R, C, H, W) sum of the probes of this round, relative to ``edge``."""
    signed: Tensor
    """(R, C, H, W) sum of the successful ones minus that of the others."""
    hits: Tensor
    """(R,) successes minus failures."""
    asked: Tensor
    """(R,) probes of this round."""
    round: Tensor
    """(R,) rounds, this one included."""
    normal: Tensor
    """(R, C, H, W) direction toward successes."""
    reach: Tensor
    """(R,) length of the next jump."""


P = TypeVar("P", bound=ProbingState)


class ProbingAttack(DecisionAttack[P]):
    """In every round: binary search to the boundary, probes around it, a jump along the normal."""

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
        """Probes, and the jumps that follow."""
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
        """Starts a round of probes at ``edge``."""
        kept = column(~chosen, state.sum)
        state.sum, state.signed = state.sum * kept, state.signed * kept
        state.hits, state.asked = state.hits * ~chosen, state.asked * ~chosen
        state.round = state.round + chosen
        state.phase = torch.where(chosen, PROBE, state.phase)

    def _record_answers(self, state: P, hit: Tensor, probing: Tensor) -> None:
        sign = (2 * hit.int() - 1) * probing
        offset = state.x - state.edge
        state.sum = state.sum + column(probing, offset) * offset
        state.signed = state.signed + column(sign, offset) * offset
        state.hits, state.asked = state.hits + sign, state.asked + probing

    def _estimate(self, state: P, ready: Tensor) -> None:
        """The mean of the successful probes minus that of the others, normalised."""
        share = state.hits / state.asked.clamp(min=1)
        share = torch.where(share.abs() == 1, 0.0, share)  # where all agree, use their mean
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
        """Sets ``x`` and ``reach`` of the first jump along ``normal``."""

    @abstractmethod
    def jump(self, state: P, hit: Tensor, jumping: Tensor) -> None:
        """The move after a jump: a binary search, another jump, or another round."""

    def placed(self, state: P, x: Tensor) -> Tensor:
        """(R, C, H, W) the probes to query, from the points ``x`` that noise leads to."""
        return x

    def arrive(self, state: P, arrived: Tensor) -> Tensor:
        """(R,) bool: of the rows that have arrived at the boundary, those that start a round now."""
        return arrived
