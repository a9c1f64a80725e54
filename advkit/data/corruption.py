"""Common corruptions of images, such as noise and blur, in five severities.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019 (ImageNet-C, CIFAR-10-C); Mu and Gilmer, "MNIST-C: A Robustness Benchmark for
Computer Vision", 2019. The definitions and constants are those of the published generators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from advkit.core import levels, rng
from advkit.core.errors import ConfigError, DataError, by_size
from advkit.core.images import to_uint8
from advkit.core.registry import Registry
from advkit.models.card import Shape

Family = Literal["mnist-c", "cifar-10-c", "imagenet-c"]
"""Published sets whose constants are used."""
SIDES: dict[Family, int] = {"mnist-c": 28, "cifar-10-c": 32, "imagenet-c": 224}
"""Pixels of the side of their images, which their lengths in pixels are for."""
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 8
"""Least side of an image, in pixels."""
_NUDGE = 1e-6
"""More than arithmetic in float32 may change, less than a level."""


@dataclass(frozen=True)
class Draw:
    """What a corruption may depend on beside the images."""

    key: Tensor
    """(N,) int64: for random numbers (`advkit.core.rng`); of the seed, corruption, image and severity."""
    scale: float
    """Factor of lengths in pixels, of these images relative to the published ones."""
    family: Family

    def signs(self, count: int) -> Tensor:
        """(N, count) float32, -1 or 1."""
        return rng.signs(self.key, (count,))


Corrupt = Callable[[Tensor, Any, Draw], Tensor]
"""Of (N, C, H, W) images in [0, 1], the severity's constant and the draw; what leaves [0, 1] is cut off."""

CORRUPTIONS: Registry[Corrupt] = Registry("corruption", "advkit.data.corruptions")


def corruption(
    name: str,
    *,
    summary: str,
    large: Sequence[Any],
    small: Sequence[Any] | None = None,
    mnist: Sequence[Any] | None = None,
    source: str = "Hendrycks and Dietterich, ICLR 2019",
    colour: bool = False,
) -> Callable[[Corrupt], Corrupt]:
    """Decorator that registers a corruption under ``name``.

    Args:
        large: constants of the five severities in ImageNet-C.
        small: in CIFAR-10-C, if they are others.
        mnist: in MNIST-C, if they are others than ``large``.
        source: who published it.
        colour: images need three channels.
    """
    constants = {"imagenet-c": large, "cifar-10-c": small or large, "mnist-c": mnist or large}
    return CORRUPTIONS.register(name, summary=summary, source=source, constants=constants, colour=colour)


def family_of(shape: Shape) -> Family:
    """The set whose images are most like these: MNIST-C for grey images up to 48 pixels, CIFAR-10-C for
    others up to 96, ImageNet-C beyond."""
    channels, side = shape[0], min(shape[1:])
    if channels == 1 and side <= 48:
        return "mnist-c"
    return "cifar-10-c" if side <= 96 else "imagenet-c"


def refuse(names: Sequence[str], shape: Shape) -> None:
    """Refuses what cannot be done to images of this shape.

    Raises:
        ConfigError: a corruption is unknown, or is one of colours and the images are grey.
        DataError: the images are too small.
    """
    if min(shape[1:]) < SMALLEST:
        raise DataError(
            f"the images are {by_size(shape)}, too small for corruptions; give images of {SMALLEST} pixels "
            "or more a side"
        )
    for name in names:
        if CORRUPTIONS.entry(name).facts["colour"] and shape[0] != 3:
            raise ConfigError(
                f"{name} changes colours, but the images have {shape[0]} channels; leave it out"
            )


def corrupted(
    x: Tensor, ids: Tensor, name: str, severity: int, *, family: Family | None = None, seed: int = 0
) -> Tensor:
    """Images under a corruption, as an image file of 8 bits would hold them.

    What happens to an image depends on it and on (seed, name, id, severity) alone, not on its batch.

    Args:
        x: (N, C, H, W) in [0, 1], on the CPU; rounded to 8 bits first.
        ids: (N,) int64 ids of the samples.
        name: of the corruption (see `advkit ls corruptions`).
        severity: 1 to 5.
        family: published set whose constants are used; by default that of images like these. Lengths in
            pixels grow with the shorter side; those of CIFAR-10-C do not shrink.

    Returns:
        (N, C, H, W) float32 multiples of 1/255 in [0, 1].

    Raises:
        ConfigError: no such corruption, severity or family, or it needs colours.
        DataError: the images are too small.

    Example:
        >>> import torch
        >>> from advkit.data.corruption import corrupted
        >>> x = torch.full((1, 1, 28, 28), 127 / 255)
        >>> float(corrupted(x, torch.tensor([0]), "brightness", 1)[0, 0, 0, 0] * 255)
        153.0
    """
    _, _, height, width = x.shape
    shape = (x.shape[1], height, width)
    refuse([name], shape)
    family = family or family_of(shape)
    if severity not in SEVERITIES or family not in get_args(Family):
        raise ConfigError(
            f"there is no severity {severity} of {family}; give 1 to 5, and one of {', '.join(SIDES)}"
        )
    entry = CORRUPTIONS.entry(name)
    scale = min(height, width) / SIDES[family]
    draw = Draw(
        rng.keys(seed, f"corruption/{entry.name}", ids, severity),
        max(1.0, scale) if family == "cifar-10-c" else scale,
        family,
    )
    constant = entry.facts["constants"][family][severity - 1]
    with torch.no_grad():
        changed = entry.thing(levels.as_image(to_uint8(x)), constant, draw)
        return levels.as_image(to_uint8(changed + _NUDGE))  # so that other batches round a tie alike
