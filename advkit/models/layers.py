"""Building blocks of architectures: sizes, transposed convolutions, initial weights, weight normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

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


def glorot(network: nn.Module) -> None:
    """Uniform with variance 2 / (fan in + fan out), zero biases (Glorot and Bengio 2010), which the
    reference GANs start from; PyTorch's own start leaves a transposed convolution's output almost
    independent of the latent vector."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def for_intervals(network: nn.Module) -> None:
    """Normal with deviation sqrt(2 pi) / fan in: an interval comes out of a layer and its ReLU about as wide
    as it went in, where the usual starts widen it by the root of the fan in (Shi et al., NeurIPS 2021)."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, 0, math.sqrt(2 * math.pi) / module.weight[0].numel())


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
