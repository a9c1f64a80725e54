"""Affine operations as bounds need them: the operation, the same with absolute weights, and its transpose."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

Size = tuple[int, ...]
"""Of the values of one image, without the batch."""
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Affine(ABC):
    """y = W x + b, for a batch of x; some have several x.

    Tensors may be the network's own parameters, so that gradients reach them.
    """

    @abstractmethod
    def linear(self, *x: Tensor) -> Tensor:
        """W x, for (N, *inputs)."""

    @abstractmethod
    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *inputs) W^T a for each input, of (R, *outputs)."""

    def absolute(self, *x: Tensor) -> Tensor:
        """abs(W) x."""
        return self.linear(*x)

    @property
    def offset(self) -> Tensor | None:
        """b, to be broadcast to the outputs."""
        return None

    @property
    def offset_size(self) -> Tensor | None:
        """At least abs(b), and the terms of which a layer may compute it."""
        return None if self.offset is None else self.offset.abs()

    @property
    @abstractmethod
    def terms(self) -> int:
        """Roundings at most behind one value of W x + b or of W^T a, in whatever order it is summed."""

    def apply(self, *x: Tensor) -> Tensor:
        """W x + b."""
        y = self.linear(*x)
        return y if self.offset is None else y + self.offset

    def size(self, *x: Tensor) -> Tensor:
        """abs(W) x + abs(b): the sum of what is summed, without its signs."""
        y = self.absolute(*x)
        return y if self.offset_size is None else y + self.offset_size

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """A frozen copy elsewhere, or in another arithmetic."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: value.detach().to(device, dtype) for name, value in tensors.items()})


@dataclass(frozen=True, eq=False)
class Dense(Affine):
    """A linear layer on vectors."""

    weight: Tensor
    """(outputs, inputs)"""
    bias: Tensor | None

    def linear(self, *x: Tensor) -> Tensor:
        """(N, outputs)"""
        return x[0] @ self.weight.T

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, outputs)"""
        return x[0] @ self.weight.abs().T

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, inputs)"""
        return (a @ self.weight,)

    @property
    def offset(self) -> Tensor | None:
        """The bias."""
        return self.bias

    @property
    def terms(self) -> int:
        """As many as there are inputs or outputs."""
        return max(self.weight.shape) + 2


@dataclass(frozen=True, eq=False)
class Convolution(Affine):
    """A two-dimensional convolution, padded with zeros."""

    weight: Tensor
    """(outputs, inputs / groups, height, width)"""
    bias: Tensor | None
    source: Size
    """(C, H, W) that go in."""
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def linear(self, *x: Tensor) -> Tensor:
        """(N, outputs, height, width)"""
        return self._convolved(x[0], self.weight)

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, outputs, height, width)"""
        return self._convolved(x[0], self.weight.abs())

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, C, H, W)"""
        wanted, kernel = self.source[1:], self.weight.shape[2:]
        extra = tuple(
            wanted[i]
            - ((a.shape[2 + i] - 1) * self.stride[i] - 2 * self.padding[i])
            - (self.dilation[i] * (kernel[i] - 1) + 1)
            for i in (0, 1)
        )
        back = functional.conv_transpose2d(
            a, self.weight, None, self.stride, self.padding, extra, self.groups, self.dilation
        )
        return (back,)

    @property
    def offset(self) -> Tensor | None:
        """The bias of each channel."""
        return None if self.bias is None else self.bias[:, None, None]

    @property
    def terms(self) -> int:
        """Values under the kernel, and those that a value of the input reaches."""
        outputs, inputs, *kernel = self.weight.shape
        return max(inputs, outputs // self.groups) * math.prod(kernel) + 2


@dataclass(frozen=True, eq=False)
class Average(Affine):
    """Any average over rectangles: one matrix along the height and one along the width."""

    down: Tensor
    """(new height, height)"""
    across: Tensor
    """(new width, width)"""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, C, new height, new width)"""
        return self.down @ x[0] @ self.across.T

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, C, height, width)"""
        return (self.down.T @ a @ self.across,)

    @property
    def terms(self) -> int:
        """Values of the whole plane."""
        return max(self.down.shape) * max(self.across.shape) + 4


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """Each value times a constant, plus a constant."""

    factor: Tensor
    """To be broadcast to the values of an image, as is ``shift``."""
    shift: Tensor | None

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] * self.factor

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] * self.factor.abs()

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *inputs)"""
        return (a * self.factor,)

    @property
    def offset(self) -> Tensor | None:
        """The constant that is added."""
        return self.shift

    @property
    def terms(self) -> int:
        """One product and one sum, and how the constants came about."""
        return 10


@dataclass(frozen=True, eq=False)
class Normalise(Affine):
    """Batch norm with running statistics; each tensor is (C,) with ones behind, to be broadcast."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    eps: float

    @property
    def factor(self) -> Tensor:
        """(C, ...) by which the values are multiplied."""
        return self.weight * (self.variance + self.eps).rsqrt()

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] * self.factor

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] * self.factor.abs()

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *inputs)"""
        return (a * self.factor,)

    @property
    def offset(self) -> Tensor | None:
        """The bias, less the scaled mean."""
        return self.bias - self.mean * self.factor

    @property
    def offset_size(self) -> Tensor | None:
        """The sum of what the offset is computed of."""
        return self.bias.abs() + (self.mean * self.factor).abs()

    @property
    def terms(self) -> int:
        """One product and one sum, and how the constants came about."""
        return 16


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same values in another shape."""

    source: Size
    target: Size

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *target)"""
        return x[0].reshape(-1, *self.target)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *source)"""
        return (a.reshape(-1, *self.source),)

    @property
    def terms(self) -> int:
        """Nothing is computed."""
        return 0


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """The sum of two things of one shape, or their difference."""

    sign: int
    """Of the second."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] + self.sign * x[1]

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] + x[1]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *inputs), twice"""
        return a, self.sign * a

    @property
    def terms(self) -> int:
        """One sum, and one where the branches began."""
        return 4


@dataclass(frozen=True, eq=False)
class Slice(Affine):
    """A part along the first dimension of an image's values."""

    source: Size
    first: int
    length: int

    def linear(self, *x: Tensor) -> Tensor:
        """(N, length, ...)"""
        return x[0][:, self.first : self.first + self.length]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *source)"""
        shape = (len(a), *self.source[1:])
        before = a.new_zeros(shape[0], self.first, *shape[1:])
        behind = a.new_zeros(shape[0], self.source[0] - self.first - self.length, *shape[1:])
        return (torch.cat([before, a, behind], 1),)

    @property
    def terms(self) -> int:
        """One sum where the branches began."""
        return 2


@dataclass(frozen=True, eq=False)
class Concatenation(Affine):
    """Several things side by side, along the first dimension of an image's values."""

    parts: Size
    """How much of that dimension each takes."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, sum of parts, ...)"""
        return torch.cat(x, 1)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, part, ...) for each"""
        return tuple(torch.split(a, list(self.parts), 1))

    @property
    def terms(self) -> int:
        """One sum where the branches began."""
        return 2
