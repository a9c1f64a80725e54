"""Universal changes: an adversarial patch anywhere in an image, or a perturbation of all its pixels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from advkit.attacks.engine.record import TensorRecord, column
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.core.warp import frame, look_up
from advkit.models.card import Shape
from advkit.trained_attacks.universal.settings import PatchSettings


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
            share: of the first step size, decreasing from 1 to 0.
        """


Form = Literal["circle", "square"]


@dataclass
class Place(TensorRecord):
    """Position, size and rotation of a patch in each image."""

    scale: Tensor
    """(R,) its diameter as a share of the image's shorter side."""
    angle: Tensor
    """(R,) degrees, counter-clockwise."""
    across: Tensor
    """(R,) from 0, at the left edge, to 1, at the right one; the patch is always inside."""
    down: Tensor
    """(R,) from 0, at the upper edge, to 1, at the lower one."""

    @classmethod
    def drawn(cls, key: Tensor, scale: Sequence[float], rotation: float) -> Place:
        """Uniform ones, by (R,) keys of `advkit.core.rng`."""
        size, angle, across, down = rng.uniform(key, (4,)).unbind(1)
        return cls(scale[0] + (scale[1] - scale[0]) * size, rotation * (2 * angle - 1), across, down)


def paste(patch: Tensor, x: Tensor, place: Place, form: Form) -> Tensor:
    """Images with a patch in each.

    Args:
        patch: (1, C, h, w) in [0, 1].
        x: (R, C, H, W) in [0, 1].
        form: outline; its edge is smoothed over one pixel of the image.

    Returns:
        (R, C, H, W) in [0, 1], differentiable with respect to the patch.
    """
    height, width = x.shape[2:]
    half = place.scale * (min(height, width) / 2)
    across = half + place.across * (width - 2 * half)
    down = half + place.down * (height - 2 * half)
    u, v = frame(height, width, across, down, place.angle, half, half)
    cover = coverage(u, v, half.view(-1, 1, 1), form)[:, None]
    return x + cover * (look_up(patch.expand(len(x), -1, -1, -1), u, v, "border") - x)


def coverage(u: Tensor, v: Tensor, half: Tensor | float, form: Form) -> Tensor:
    """Share of a pixel at (u, v) that the patch covers, 0 to 1, by its distance from the outline.

    Args:
        u: across the patch, from -1 to 1.
        v: down the patch, from -1 to 1.
        half: half of the patch's diameter, in pixels.
    """
    outward = (u.square() + v.square()).sqrt() if form == "circle" else torch.maximum(u.abs(), v.abs())
    return ((1 - outward) * half + 0.5).clamp(0, 1)


class Patch(Change):
    """A patch at a random position in every image and update."""

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


class Perturbation(Change):
    """Added to every image, which is then clamped to [0, 1].

    Args:
        threat: norm (linf or l2) and budget.
        rate: first step size, as a share of the budget.
    """

    def __init__(self, threat: Threat, shape: Shape, rate: float) -> None:
        self.threat, self.shape, self.rate = threat, shape, rate

    def start(self) -> Tensor:
        """Zero."""
        return torch.zeros(1, *self.shape)

    def apply(self, change: Tensor, x: Tensor, key: Tensor) -> Tensor:
        """The sum, inside [0, 1]; clamping only reduces the distance to the image."""
        return (x + change).clamp(0, 1)

    def ascend(self, change: Tensor, uphill: Tensor, share: float) -> Tensor:
        """The steepest step in the norm, then a projection into the budget."""
        return self.inside(change + self.rate * share * self.threat.eps * self.threat.ascent(uphill))

    def inside(self, change: Tensor) -> Tensor:
        """(N, C, H, W) the nearest perturbations within the budget."""
        if self.threat.norm == "linf":
            return change.clamp(-self.threat.eps, self.threat.eps)
        length = torch.linalg.vector_norm(change.flatten(1), dim=1).clamp(min=1e-12)
        return change * column((self.threat.eps / length).clamp(max=1), change)
