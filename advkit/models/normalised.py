"""Weight normalisation (Salimans and Kingma, "Weight Normalization", 2016)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear


class _RowLength(torch.autograd.Function):
    """Euclidean length of each row; PyTorch's own backward pass makes three copies of the matrix."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """(N,) of (N, D)."""
        length: Tensor = rows.norm(dim=1).clamp_min(1e-6)
        ctx.save_for_backward(rows, length)
        return length

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """(N, D)"""
        rows, length = ctx.saved_tensors
        return torch.mul(rows, (gradients[0] / length)[:, None])


class _Normalised(nn.Module):
    """Outputs with directions (outputs, ...), gains and biases."""

    gain: Tensor

    def __init__(self, directions: tuple[int, ...], *, fixed: bool) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(directions) / math.sqrt(math.prod(directions[1:])))
        self.bias = nn.Parameter(torch.zeros(directions[0]))
        gain = torch.full((directions[0],), math.sqrt(2) if fixed else 1.0)
        if fixed:
            self.register_buffer("gain", gain)
        else:
            self.gain = nn.Parameter(gain)

    @property
    def scale(self) -> Tensor:
        """(outputs,): by what the directions have to be multiplied."""
        length: Tensor = _RowLength.apply(self.direction.flatten(1))
        return self.gain / length


class NormalisedLinear(_Normalised):
    """A linear layer that learns directions and biases; its gains only if they are not ``fixed``, in which
    case it cannot drown the noise before it."""

    def __init__(self, inputs: int, outputs: int, *, fixed: bool) -> None:
        super().__init__((outputs, inputs), fixed=fixed)

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs); the output is scaled rather than the weights, which are many more."""
        return torch.addcmul(self.bias, linear(x, self.direction).float(), self.scale)


class NormalisedConv2d(_Normalised):
    """A strided convolution of fixed gains."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__((outputs, inputs, kernel, kernel), fixed=True)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, H / stride, W / stride), rounded up."""
        weight = self.direction * self.scale[:, None, None, None]
        return conv2d(x, weight, self.bias, self.stride, self.padding)


@contextmanager
def standardising(network: nn.Module) -> Iterator[None]:
    """The first pass inside sets the gains and biases of these layers so that each output has mean 0 and
    variance 1 over that batch (Salimans and Kingma 2016, section 3); other layers stay."""

    @torch.no_grad()
    def adjust(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(layer, _Normalised)
        rest = [dimension for dimension in range(output.dim()) if dimension != 1]
        mean, deviation = output.mean(rest), output.std(rest).clamp_min(1e-3)
        layer.gain.div_(deviation)
        layer.bias.sub_(mean).div_(deviation)
        shape = [-1 if dimension == 1 else 1 for dimension in range(output.dim())]
        return (output - mean.view(shape)) / deviation.view(shape)

    hooks = [
        module.register_forward_hook(adjust)
        for module in network.modules()
        if isinstance(module, _Normalised)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
