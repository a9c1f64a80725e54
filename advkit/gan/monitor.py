"""Signs that a GAN's game goes wrong: lost diversity, a discriminator that always wins, divergence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.errors import DivergedError

COLLAPSED = 0.4
"""Share of the real images' diversity under which the generator is said to repeat itself."""
WON = 0.98
"""Accuracy above which the discriminator is said to win every time."""


def diversity(images: Tensor) -> float:
    """Mean Euclidean distance between pairs of images (N, C, H, W)."""
    return float(torch.pdist(images.flatten(1).float()).mean())


class Monitor:
    """Watches one training run.

    Args:
        real: some real images, whose diversity is the yardstick.
    """

    def __init__(self, real: Tensor) -> None:
        self._real = max(diversity(real), 1e-12)

    def relative_diversity(self, samples: Tensor) -> float:
        """Diversity of generated images as a share of the real ones'."""
        return diversity(samples) / self._real

    def warnings(self, relative_diversity: float, discriminator_accuracy: float) -> list[str]:
        """Sentences for a person: what is seen and what to try."""
        said = []
        if relative_diversity < COLLAPSED:
            said.append(
                f"samples differ {relative_diversity:.0%} as much as real images: the generator may be collapsing; "
                "try a smaller --rate-generator or another --loss"
            )
        if discriminator_accuracy > WON:
            said.append(
                f"discriminator accuracy is {discriminator_accuracy:.0%}: the generator is too weak; "
                "try a smaller --rate-discriminator"
            )
        return said

    @staticmethod
    def stop_if_diverged(step: int, **losses: float) -> None:
        """Raises `DivergedError` when a loss is no longer finite."""
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise DivergedError(
                    f"training diverged at step {step}: {name} is {loss}; "
                    "try smaller learning rates (--rate-generator, --rate-discriminator)"
                )
