"""The sizes that an image passes through when a network halves it, or grows it from a small start."""

from __future__ import annotations

from torch import nn

from advkit.core.errors import ConfigError
from advkit.models.card import Shape

Size = tuple[int, int]
"""(height, width)"""

LEAST = 8
"""Shorter side, in pixels, down to which an image is halved, so a start has 4 to 7."""


def halvings(shape: Shape) -> int:
    """How often an image can be halved, rounding up, until its shorter side has fewer than `LEAST` pixels."""
    count, side = 0, min(shape[1:])
    while side >= LEAST:
        count, side = count + 1, (side + 1) // 2
    return count


def growth(shape: Shape, steps: int | None = None) -> list[Size]:
    """Sizes from the start to the whole image, each the last one doubled (or one pixel less).

    Args:
        shape: the image.
        steps: how many steps there are to be, by default `halvings`. If there are more than the image has
            halvings, the first of them leave the size as it is.
    """
    sizes = [(shape[1], shape[2])]
    steps = halvings(shape) if steps is None else steps
    for _ in range(min(steps, halvings(shape))):
        height, width = sizes[0]
        sizes.insert(0, ((height + 1) // 2, (width + 1) // 2))
    return [sizes[0]] * (steps + 1 - len(sizes)) + sizes


def refuse_small(shape: Shape) -> None:
    """Raises a `ConfigError` for an image that cannot be halved once."""
    if shape[0] < 1 or min(shape[1:]) < LEAST:
        raise ConfigError(
            f"images must have at least 1 channel and {LEAST}x{LEAST} pixels; give larger ones, or take a "
            "dense network"
        )


def transposed(inputs: int, outputs: int, kernel: int, before: Size, after: Size) -> nn.ConvTranspose2d:
    """A transposed convolution with an odd ``kernel`` from size ``before`` to ``after``, of `growth`."""
    if before == after:
        return nn.ConvTranspose2d(inputs, outputs, kernel, padding=kernel // 2)
    extra = (after[0] - 2 * before[0] + 1, after[1] - 2 * before[1] + 1)  # 0 or 1: odd or even size
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, output_padding=extra)
