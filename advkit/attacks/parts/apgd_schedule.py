"""The schedule of Auto-PGD: the start of a row and its moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from advkit.attacks.attack import Rows, State


@dataclass
class APGDState(State):
    """The best point and step size of each row."""

    x_best: Tensor
    """(R, C, H, W) the point of the highest loss so far."""
    grad_best: Tensor
    """(R, C, H, W) the gradient there."""
    loss_best: Tensor
    """(R,) that loss."""
    step_size: Tensor
    """(R,) length of the next step."""
    since: Tensor
    """(R,) iterations since the last check; -1 before the first point is evaluated, which is not an iteration
    of the schedule."""


A = TypeVar("A", bound=APGDState)


class Schedule(ABC, Generic[A]):
    """Determines the steps of each row from its losses."""

    @abstractmethod
    def first(self, rows: Rows) -> Tensor:
        """(R, C, H, W) random points to start from."""

    @abstractmethod
    def begin(self, rows: Rows, x: Tensor, iteration: Tensor) -> A:
        """The initial state of rows at ``x``.

        Args:
            rows: constant inputs of each.
            x: (R, C, H, W) allowed points.
            iteration: (R,) steps taken.
        """

    @abstractmethod
    def move(self, state: A, loss: Tensor, grad: Tensor) -> A:
        """Adapts the step size where a check is due, and takes a step.

        Args:
            state: its best points include ``x``; its memory is reused.
            loss: (R,) at ``x``.
            grad: (R, C, H, W) at ``x``; its memory is reused.
        """
