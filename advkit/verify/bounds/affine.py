"""Affine operations for bounds: the operation, the same with absolute weights, and its transpose."""

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
        """An upper bound of abs(b) and of the terms that a layer computes it from."""
        return None if self.offset is None else self.offset.abs()

    @property
    @abstractmethod
    def terms(self) -> int:
        """Largest number of roundings in one value of W x + b or of W^T a, in any order of summation."""

    def roundings(self, *x: Tensor) -> int | Tensor:
        """Largest number of roundings in W x + b, of all its values or each (N, *outputs), for values up to x
        in size. A term that is 0 adds none: its product and its sum are exact."""
        return self.terms

    def apply(self, *x: Tensor) -> Tensor:
        """W x + b."""
        y = self.linear(*x)
        return y if self.offset is None else y + self.offset

    def size(self, *x: Tensor) -> Tensor:
        """abs(W) x + abs(b): the sum of the absolute values of all terms."""
        y = self.absolute(*x)
        return y if self.offset_size is None else y + self.offset_size

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """A copy without gradients on another device, or in another precision."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: value.detach().to(device, dtype) for name, value in tensors.items()})


def _not_0(values: Tensor, like: Tensor) -> Tensor:
    """1 where a value is not 0, as numbers that can be summed."""
    return (values != 0).to(like.dtype)


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

    def roundings(self, *x: Tensor) -> Tensor:
        """(N, outputs): a product and a sum of each term, and the bias."""
        return _not_0(x[0], x[0]) @ _not_0(self.weight, x[0]).T + 2

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, inputs)"""
        return (a @ self.weight,)

    @property
    def offset(self) -> Tensor | None:
        """The bias."""
        return self.bias

    @property
    def terms(self) -> int:
        """The number of inputs or outputs."""
        return max(self.weight.shape) + 2


@dataclass(frozen=True, eq=False)
class Convolution(Affine):
    """A two-dimensional convolution, padded with zeros."""

    weight: Tensor
    """(outputs, inputs / groups, height, width)"""
    bias: Tensor | None
    source: Size
    """(C, H, W) of the input."""
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def linear(self, *x: Tensor) -> Tensor:
        """(N, outputs, height, width)"""
        return self._convolved(x[0], self.weight)

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, outputs, height, width)"""
        return self._convolved(x[0], self.weight.abs())

    def roundings(self, *x: Tensor) -> Tensor:
        """(N, outputs, height, width): a product and a sum of each term, and the bias."""
        return self._convolved(_not_0(x[0], x[0]), _not_0(self.weight, x[0])) + 2

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
        """Values under the kernel, or outputs that one input value affects."""
        outputs, inputs, *kernel = self.weight.shape
        return max(inputs, outputs // self.groups) * math.prod(kernel) + 2


class Elementwise(Affine):
    """Each value times a factor of its own, plus a constant."""

    @property
    @abstractmethod
    def factors(self) -> Tensor:
        """To be broadcast to the values of an image."""

    def linear(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] * self.factors

    def absolute(self, *x: Tensor) -> Tensor:
        """(N, *inputs)"""
        return x[0] * self.factors.abs()

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """(R, *inputs)"""
        return (a * self.factors,)


@dataclass(frozen=True, eq=False)
class Scale(Elementwise):
    """Each value times a constant, plus a constant."""

    factor: Tensor
    """To be broadcast to the values of an image, as is ``shift``."""
    shift: Tensor | None

    @property
    def factors(self) -> Tensor:
        """``factor``."""
        return self.factor

    @property
    def offset(self) -> Tensor | None:
        """The constant that is added."""
        return self.shift

    @property
    def terms(self) -> int:
        """One product and one sum, and the computation of the constants."""
        return 10


@dataclass(frozen=True, eq=False)
class Normalise(Elementwise):
    """Batch norm with running statistics; each tensor is (C,) with ones behind, to be broadcast."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    eps: float

    @property
    def factors(self) -> Tensor:
        """(C, ...) by which the values are multiplied."""
        return self.weight * (self.variance + self.eps).rsqrt()

    @property
    def offset(self) -> Tensor | None:
        """The bias, less the scaled mean."""
        return self.bias - self.mean * self.factors

    @property
    def offset_size(self) -> Tensor | None:
        """The sum of the absolute values that the offset is computed from."""
        return self.bias.abs() + (self.mean * self.factors).abs()

    @property
    def terms(self) -> int:
        """One product and one sum, and the computation of the constants."""
        return 16
