"""ReLU and max pooling, and their linear lower and upper bounds on a box.

ReLU: below, alpha z with any alpha between its two slopes; above, the chord (Zhang et al., CROWN, 2018; Singh
et al., DeepPoly, 2019). Max pooling: below, the input with the highest middle; above, the input z_j with the
highest upper end, by the chord of max(z_j, m), where m is the highest upper end of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from advkit.verify.bounds.affine import Pair, Size


class Relaxation(Protocol):
    """Linear lower and upper bounds of an operation, for each image."""

    def back(self, a: Tensor, index: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A lower bound, linear in the inputs, of the rows ``a`` (R, *outputs) of the outputs.

        Args:
            a: coefficients of each row.
            index: (R,) image of each row.
            slope: (R, *outputs) of ReLU's lower line; None: the default.

        Returns:
            Coefficients (R, *inputs) and constants (R,), these in float64.
        """

    def reach(self, size: Tensor) -> Tensor:
        """(N, *outputs) the sum of absolute values over all paths, from that of the inputs (N, *inputs)."""

    def to(self, dtype: torch.dtype) -> Relaxation:
        """The same in another precision."""


@dataclass(frozen=True)
class Lines:
    """Linear bounds of a ReLU."""

    lower: Tensor
    """(N, *shape) slope of the lower line: that of the larger side of the interval."""
    upper: Tensor
    """(N, *shape) slope of the chord."""
    shift: Tensor
    """(N, *shape) its value at 0."""

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three tensors, each (N, H, W, C)."""
        lower, upper, shift = (
            t.permute(0, 2, 3, 1).contiguous() for t in (self.lower, self.upper, self.shift)
        )
        return lower, upper, shift

    def back(self, a: Tensor, index: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Relaxation`."""
        negative, shift = a.clamp(max=0), self.shift[index]
        lower = self.lower[index]
        if slope is not None:
            lower = torch.where(shift > 0, slope, lower)  # only for undecided signs is there a choice
        constant = (negative * shift).flatten(1).sum(1, dtype=torch.float64)
        return (a - negative) * lower + negative * self.upper[index], constant

    def reach(self, size: Tensor) -> Tensor:
        """See `Relaxation`."""
        return torch.where(self.shift != 0, 1.0, self.upper) * size + self.shift.abs()

    def to(self, dtype: torch.dtype) -> Lines:
        """See `Relaxation`."""
        return Lines(self.lower.to(dtype), self.upper.to(dtype), self.shift.to(dtype))


@dataclass(frozen=True)
class Relu:
    """max(z, slope z); a leaky one has a slope above 0."""

    slope: float = 0.0
    """In [0, 1]."""
    cut: tuple[bool, ...] = (True,)
    """Which channels, over and over; the others pass unchanged."""

    def apply(self, z: Tensor) -> Tensor:
        """(N, *shape)"""
        cut = functional.leaky_relu(z, self.slope) if self.slope else z.relu()
        return cut if all(self.cut) else torch.where(self._passing(z), z, cut)

    def _passing(self, z: Tensor) -> Tensor:
        """bool, to be broadcast to ``z`` (N, C, ...)."""
        passing = ~torch.tensor(self.cut, device=z.device)
        return passing if all(self.cut) else passing.repeat(z.shape[1] // len(self.cut))[:, None, None]

    def open(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(N, *shape) bool: inputs for which tighter bounds would help."""
        return (lower < 0) & (upper > 0) & ~self._passing(lower)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """(N, *shape) the least and the largest slope between two inputs."""
        one = torch.ones_like(lower)
        return torch.where(lower >= 0, one, self.slope), torch.where(upper > 0, one, self.slope)

    def relaxed(self, lower: Tensor, upper: Tensor) -> Lines:
        """The lines of inputs between ``lower`` and ``upper`` (N, *shape)."""
        bottom, top = self.apply(lower), self.apply(upper)
        chord = (top - bottom) / (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
        unstable, one = self.open(lower, upper), torch.ones_like(lower)  # two numbers would give float32
        sure = torch.where((upper > 0) | self._passing(upper), one, self.slope)
        return Lines(
            torch.where(unstable, torch.where(upper > -lower, one, self.slope), sure),
            torch.where(unstable, chord, sure),
            torch.where(unstable, top - chord * upper, 0.0),
        )


@dataclass(frozen=True)
class Chosen:
    """Linear bounds of a max pooling: one input below and one above each window."""

    source: Size
    """(C, H, W) of the input."""
    lower: Tensor
    """(N, C, h, w) int64: index in the plane of the input below."""
    upper: Tensor
    """(N, C, h, w) int64: index of the input that, scaled and shifted, is above."""
    scale: Tensor
    """(N, C, h, w) its factor, in [0, 1]."""
    shift: Tensor
    """(N, C, h, w) what is added to it."""

    def back(self, a: Tensor, index: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Relaxation`."""
        negative = a.clamp(max=0)
        constant = (negative * self.shift[index]).flatten(1).sum(1, dtype=torch.float64)
        channels, height, width = self.source
        plane = a.new_zeros(len(a), channels, height * width)
        plane = plane.scatter_add(2, self.lower[index].flatten(2), (a - negative).flatten(2))
        above = (negative * self.scale[index]).flatten(2)
        plane = plane.scatter_add(2, self.upper[index].flatten(2), above)
        return plane.view(-1, *self.source), constant

    def reach(self, size: Tensor) -> Tensor:
        """See `Relaxation`."""
        plane = size.flatten(2)
        ways = [plane.gather(2, place.flatten(2)).view(place.shape) for place in (self.lower, self.upper)]
        return torch.maximum(*ways) + self.shift.abs()

    def to(self, dtype: torch.dtype) -> Chosen:
        """See `Relaxation`."""
        return replace(self, scale=self.scale.to(dtype), shift=self.shift.to(dtype))


@dataclass(frozen=True)
class MaxPool:
    """The largest value under a window."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil: bool

    def apply(self, z: Tensor) -> Tensor:
        """(N, C, h, w)"""
        return functional.max_pool2d(z, self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    def open(self, lower: Tensor, upper: Tensor) -> Tensor:
        """(N, C, H, W) bool: inputs for which tighter bounds would help."""
        return lower < upper

    def relaxed(self, lower: Tensor, upper: Tensor) -> Chosen:
        """The choices for inputs between ``lower`` and ``upper`` (N, C, H, W)."""
        below, above = self._highest(lower + upper), self._highest(upper)
        top, bottom = (z.flatten(2).gather(2, above.flatten(2)).view(above.shape) for z in (upper, lower))
        rest = torch.maximum(self._others(upper, above), bottom)
        width = (top - bottom).clamp(min=torch.finfo(lower.dtype).tiny)
        scale = torch.where(rest > bottom, (top - rest) / width, torch.ones_like(top))
        return Chosen(tuple(lower.shape[1:]), below, above, scale, rest - scale * bottom)

    def _highest(self, z: Tensor) -> Tensor:
        """(N, C, h, w) index in the plane of the largest value of each window."""
        places: Tensor = functional.max_pool2d(
            z, self.kernel, self.stride, self.padding, self.dilation, self.ceil, return_indices=True
        )[1]
        return places

    def _others(self, z: Tensor, chosen: Tensor) -> Tensor:
        """(N, C, h, w) the largest value of each window without the one at ``chosen``; -inf for none."""
        n, channels, height, width = z.shape
        place = torch.arange(height * width, device=z.device, dtype=z.dtype).view(1, 1, height, width)
        size = [
            (chosen.shape[2 + i] - 1) * self.stride[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            for i in (0, 1)
        ]
        left, up = self.padding[1], self.padding[0]
        sides = (left, max(size[1] - width - left, 0), up, max(size[0] - height - up, 0))
        windows = [
            functional.unfold(
                functional.pad(part, sides, value=fill), self.kernel, self.dilation, 0, self.stride
            )
            for part, fill in ((z, -torch.inf), (place, -1.0))
        ]
        shape = (self.kernel[0] * self.kernel[1], *chosen.shape[2:])
        values, places = windows[0].view(n, channels, *shape), windows[1].view(1, 1, *shape)
        return torch.where(places == chosen[:, :, None].to(z.dtype), -torch.inf, values).amax(2)
