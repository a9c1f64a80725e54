"""What all forms of Auto-PGD share, and what they may differ in: where a row starts and how it moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from advkit.attacks.attack import Rows, State


@dataclass
class APGDState(State):
    """The best point of each row, and its step."""

    x_best: Tensor
    """(R, C, H, W) the point of the highest loss so far."""
    grad_best: Tensor
    """(R, C, H, W) the gradient there."""
    loss_best: Tensor
    """(R,) that loss."""
    step_size: Tensor
    """(R,) length of the next step."""
    since: Tensor
    """(R,) iterations since the last check; -1 before the first point is judged, which is no iteration of
    the schedule."""


A = TypeVar("A", bound=APGDState)


class Schedule(ABC, Generic[A]):
    """Decides on the steps of each row from the losses that it met."""

    @abstractmethod
    def first(self, rows: Rows) -> Tensor:
        """(R, C, H, W) random points to start from."""

    @abstractmethod
    def begin(self, rows: Rows, x: Tensor, iteration: Tensor) -> A:
        """The state of rows that stand at ``x`` and know nothing yet.

        Args:
            rows: what is fixed about each.
            x: (R, C, H, W) allowed points.
            iteration: (R,) steps taken.
        """

    @abstractmethod
    def move(self, state: A, loss: Tensor, grad: Tensor) -> A:
        """Settles the step size where a check is due, and takes a step.

        Args:
            state: its best points know of ``x`` already; its memory is used for the next.
            loss: (R,) at ``x``.
            grad: (R, C, H, W) at ``x``; its memory is used too.
        """
