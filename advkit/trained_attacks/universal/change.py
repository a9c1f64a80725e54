"""The interface of universal attacks: one change for all images."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Change(ABC):
    """One tensor and its application to images; images are in [0, 1] before and after."""

    @abstractmethod
    def start(self) -> Tensor:
        """The tensor before training, (1, C, h, w)."""

    @abstractmethod
    def apply(self, change: Tensor, x: Tensor, key: Tensor) -> Tensor:
        """(R, C, H, W) the images ``x`` with the change, differentiable with respect to it.

        Args:
            change: (1, C, h, w).
            x: (R, C, H, W).
            key: (R,) random keys, for changes that differ from image to image.
        """

    @abstractmethod
    def ascend(self, change: Tensor, uphill: Tensor, share: float) -> Tensor:
        """The change after one allowed step.

        Args:
            change: (1, C, h, w).
            uphill: an ascent direction, of any length.
            share: of the first step size, decreasing from 1 to 0.
        """
