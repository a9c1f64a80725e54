"""Geometric corruptions, of MNIST-C: the image rotated, scaled, sheared or moved; the border is black."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core.warp import mapped
from advkit.data.corruption import SIDES, Draw, corruption

SOURCE = "Mu and Gilmer 2019"


@corruption(
    "rotate",
    source=SOURCE,
    summary="rotated to either side by up to 57 degrees",
    large=(0.2, 0.4, 0.6, 0.8, 1.0),
)
def rotate(x: Tensor, radians: float, draw: Draw) -> Tensor:
    """About the centre, to a random side."""
    angle = radians * draw.signs(1)[:, 0]
    return mapped(x, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


@corruption("shear", source=SOURCE, summary="sheared to either side", large=(0.2, 0.4, 0.6, 0.8, 1.0))
def shear(x: Tensor, radians: float, draw: Draw) -> Tensor:
    """Vertical lines tilt by an angle, to a random side, at their length."""
    angle = radians * draw.signs(1)[:, 0]
    return mapped(x, torch.ones_like(angle), -angle.sin(), torch.zeros_like(angle), angle.cos())


@corruption(
    "scale", source=SOURCE, summary="shrunk to as little as half its size", large=(0.9, 0.8, 0.7, 0.6, 0.5)
)
def scale(x: Tensor, factor: float, draw: Draw) -> Tensor:
    """About the centre."""
    by, zero = torch.full((len(x),), 1 / factor), torch.zeros(len(x))
    return mapped(x, by, zero, zero, by)


@corruption("translate", source=SOURCE, summary="moved in a diagonal direction", large=(1, 2, 3, 4, 5))
def translate(x: Tensor, pixels: int, draw: Draw) -> Tensor:
    """By pixels of an image of 28 x 28, in each of the two directions to a random side."""
    one, zero = torch.ones(len(x)), torch.zeros(len(x))
    by = pixels * min(x.shape[2:]) / SIDES["mnist-c"] * draw.signs(2)
    return mapped(x, one, zero, zero, one, by[:, 0], by[:, 1])
