"""Adversarial patches (Brown et al., "Adversarial Patch", 2017): trained over position, size and rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.models.card import Shape
from advkit.trained_attacks.universal.change import Change
from advkit.trained_attacks.universal.place import Place, paste
from advkit.trained_attacks.universal.settings import PatchSettings


class Patch(Change):
    """A patch at a random position in every image and update.

    Args:
        settings: its shape and positions.
        shape: of the images.
    """

    def __init__(self, settings: PatchSettings, shape: Shape) -> None:
        self.settings, self.channels = settings, shape[0]
        self.pixels = settings.pixels or max(1, math.ceil(settings.scale[1] * min(shape[1:]) - 1e-9))

    def start(self) -> Tensor:
        """Grey."""
        return torch.full((1, self.channels, self.pixels, self.pixels), 0.5)

    def apply(self, change: Tensor, x: Tensor, key: Tensor) -> Tensor:
        """The patch at a random position in each image."""
        place = Place.drawn(key, self.settings.scale, self.settings.rotation)
        return paste(change, x, place, self.settings.form)

    def ascend(self, change: Tensor, uphill: Tensor, share: float) -> Tensor:
        """A step of the same size for every pixel, inside [0, 1]."""
        return (change + self.settings.rate * share * uphill.sign()).clamp_(0, 1)
