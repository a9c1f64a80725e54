"""What is done to every image alike."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Change(ABC):
    """One tensor, and how it changes an image; images and their changed forms are in [0, 1]."""

    @abstractmethod
    def start(self) -> Tensor:
        """The tensor before training, (1, C, h, w)."""

    @abstractmethod
    def apply(self, change: Tensor, x: Tensor, key: Tensor) -> Tensor:
        """(R, C, H, W) the images ``x`` with the change, differentiable with respect to it.

        Args:
            change: (1, C, h, w).
            x: (R, C, H, W).
            key: (R,) random keys, for changes that fall out differently on every image.
        """

    @abstractmethod
    def ascend(self, change: Tensor, uphill: Tensor, share: float) -> Tensor:
        """The change after one allowed step.

        Args:
            change: (1, C, h, w).
            uphill: a direction that raises the loss, of any length.
            share: of the first step size, from 1 down to 0.
        """
