"""Shared parts of decision-based attacks: a first success, and a binary search from it to the boundary.

Every step makes one query a row, and each row has its own phase.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from advkit.attacks.attack import Attack, Rows, State
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import column
from advkit.core import rng
from advkit.core.threat import Norm

SEEK, CLOSE = 0, 1
"""Phases: random images until one is a success; binary search between the original and a success. Higher
numbers belong to each attack."""

GRAINS = 4
"""Random images have blocks of 1, 2, 4 and 8 pixels across, in turn: coarse noise often succeeds where fine
noise does not."""


@dataclass
class DecisionState(State):
    """The segment from the original to a success, which crosses the boundary."""

    phase: Tensor
    """(R,) the purpose of the query at ``x``."""
    far: Tensor
    """(R, C, H, W) a success."""
    low: Tensor
    """(R,) largest share of the way to it without success."""
    high: Tensor
    """(R,) smallest share with success."""


D = TypeVar("D", bound=DecisionState)


class DecisionAttack(Attack[D]):
    """Searches a success and the boundary; each attack continues from there."""

    access = "decisions"
    minimal = True
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    closeness: ClassVar[float]
    """Width at which the binary search ends, as a share of the way, times the root of the image's size."""

    @property
    def steps(self) -> int:
        """The last query confirms what was found."""
        return int(self.config.queries) - 1  # type: ignore[attr-defined]

    def started(self, rows: Rows) -> dict[str, Any]:
        """The fields of `DecisionState` at the start: a random image."""
        zero = torch.zeros_like(rows.label)
        return {
            "rows": rows,
            "x": random_image(rows, zero),
            "iteration": zero,
            "phase": zero,
            "far": rows.x0.clone(),
            "low": torch.zeros_like(rows.x0[:, 0, 0, 0]),
            "high": torch.ones_like(rows.x0[:, 0, 0, 0]),
        }

    def step(self, state: D, oracle: Oracle) -> D:
        """One query of each row, and the resulting move."""
        rows = state.rows
        predicted = oracle.decisions(state.x)
        hit = predicted != rows.label if rows.target_class is None else predicted == rows.target_class
        closing, middle = state.phase == CLOSE, (state.low + state.high) / 2
        state.high = torch.where(closing & hit, middle, state.high)
        state.low = torch.where(closing & ~hit, middle, state.low)
        self.close(state, (state.phase == SEEK) & hit, state.x)
        left = self.closeness / math.sqrt(rows.x0[0].numel())
        arrived = closing & (state.high - state.low <= left)
        self.move(state, hit, arrived)
        seeking = state.phase == SEEK
        if any_row(seeking):
            guess = random_image(rows, state.iteration + 1)
            state.x = torch.where(column(seeking, guess), guess, state.x)
        closing = state.phase == CLOSE
        if any_row(closing):
            middle = self.between(state, (state.low + state.high) / 2)
            state.x = torch.where(column(closing, middle), middle, state.x)
        return state

    @abstractmethod
    def move(self, state: D, hit: Tensor, arrived: Tensor) -> None:
        """Moves the rows in other phases than those of this module, and those that have just arrived.

        Args:
            state: changed in place: rows that leave the phase CLOSE need a phase and the next ``x``.
            hit: (R,) bool: ``x`` was a success.
            arrived: (R,) bool: the binary search has ended; the boundary is just below ``high``.
        """

    def close(self, state: D, chosen: Tensor, far: Tensor) -> None:
        """Starts the binary search of the rows ``chosen``, toward the successes ``far``."""
        state.far = torch.where(column(chosen, far), far, state.far)
        state.low = torch.where(chosen, 0.0, state.low)
        state.high = torch.where(chosen, 1.0, state.high)
        state.phase = torch.where(chosen, CLOSE, state.phase)

    def between(self, state: D, share: Tensor) -> Tensor:
        """(R, C, H, W) the points at this share of the way to ``far``, by distance."""
        x0, change = state.rows.x0, state.far - state.rows.x0
        if self.threat.norm == "linf":
            reach = column(share * change.flatten(1).abs().amax(1), change)
            return x0 + change.clamp(-reach, reach)
        return x0 + column(share, change) * change


def random_image(rows: Rows, number: Tensor) -> Tensor:
    """(R, C, H, W) uniform noise: image ``number`` of each row; its blocks grow with the number."""
    shape = rows.x0.shape[1:]
    fine = rng.uniform(rng.step(rows.key, number), shape)
    image, grain = fine, number % GRAINS
    for power in range(1, GRAINS):
        rough = fine[:, :, : math.ceil(shape[1] / 2**power), : math.ceil(shape[2] / 2**power)]
        coarse = interpolate(rough, scale_factor=2**power)[:, :, : shape[1], : shape[2]]
        image = torch.where(column(grain == power, image), coarse, image)
    return image


def any_row(chosen: Tensor) -> bool:
    """Whether any row is ``chosen``; always true where the test would synchronise with the device."""
    return chosen.device.type != "cpu" or bool(chosen.any())
