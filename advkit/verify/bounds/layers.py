"""Readers of the layers and functions that can be bounded, one function each.

The arguments are the reading, a name, and the arguments of the call. Tensors that depend on the images are of
type `Value`; all others are unchanged.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from advkit.verify.bounds import arithmetic
from advkit.verify.bounds.affine import Convolution, Dense, Normalise, Pair
from advkit.verify.bounds.arrange import Average
from advkit.verify.bounds.curves import Curve
from advkit.verify.bounds.reading import Reading, Unreadable, Value
from advkit.verify.bounds.relaxation import MaxPool, Relu


def _relu(reading: Reading, name: str, x: Value, inplace: object = None) -> Value:
    return reading.add(name, Relu(), x)


def _leaky_relu(
    reading: Reading, name: str, x: Value, negative_slope: float = 0.01, inplace: object = None
) -> Value:
    if not 0 <= negative_slope <= 1:
        raise Unreadable(f"its slope {negative_slope:g} is outside [0, 1]")
    return reading.add(name, Relu(float(negative_slope)), x)


def _sigmoid(reading: Reading, name: str, x: Value) -> Value:
    return reading.add(name, Curve("sigmoid"), x)


def _tanh(reading: Reading, name: str, x: Value) -> Value:
    return reading.add(name, Curve("tanh"), x)


def _linear(reading: Reading, name: str, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    if x.example.dim() != 2:
        raise Unreadable(f"its input has shape {tuple(x.example.shape[1:])}, where only vectors can be read")
    return reading.add(name, Dense(weight, bias), x)


def _conv2d(
    reading: Reading,
    name: str,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    spaced = _pair(dilation)
    if padding == "same":
        total = [spaced[i] * (weight.shape[2 + i] - 1) for i in (0, 1)]
        if any(length % 2 for length in total):
            raise Unreadable("it pads one side more than the other")
        padding = tuple(length // 2 for length in total)
    edge = (0, 0) if padding == "valid" else _pair(padding)
    op = Convolution(weight, bias, x.size, _pair(stride), edge, spaced, groups)
    return reading.add(name, op, x)


def _max_pool2d(
    reading: Reading,
    name: str,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if return_indices:
        raise Unreadable("it also returns indices")
    size = _pair(kernel_size)
    op = MaxPool(size, _pair(stride) if stride else size, _pair(padding), _pair(dilation), ceil_mode)
    if (op.apply(torch.zeros_like(x.example)) < 0).any():
        raise Unreadable("one of its windows covers only padding")
    return reading.add(name, op, x)


def _averaged(reading: Reading, name: str, x: Value, along: Callable[[Tensor, int], Tensor]) -> Value:
    """An average pooling, given as ``along``: it maps (N, 1, H, 1) or (N, 1, 1, W), for the axis 0 or 1."""
    height, width = x.example.shape[2:]
    like = x.example
    down = along(torch.eye(height, dtype=like.dtype, device=like.device).view(height, 1, height, 1), 0)
    across = along(torch.eye(width, dtype=like.dtype, device=like.device).view(width, 1, 1, width), 1)
    return reading.add(name, Average(down.flatten(1).T, across.flatten(1).T), x)


def _avg_pool2d(
    reading: Reading,
    name: str,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    size, edge = _pair(kernel_size), _pair(padding)
    step = _pair(stride) if stride else size

    def along(plane: Tensor, axis: int) -> Tensor:
        kernel, stride, rim = (
            (pair[0], rest) if axis == 0 else (rest, pair[1])
            for pair, rest in ((size, 1), (step, 1), (edge, 0))
        )
        divisor = (1 if axis else divisor_override) if divisor_override else None
        return functional.avg_pool2d(plane, kernel, stride, rim, ceil_mode, count_include_pad, divisor)

    return _averaged(reading, name, x, along)


def _adaptive_avg_pool2d(reading: Reading, name: str, x: Value, output_size: Any) -> Value:
    wanted = [length or x.example.shape[2 + i] for i, length in enumerate(_pair(output_size))]

    def along(plane: Tensor, axis: int) -> Tensor:
        return functional.adaptive_avg_pool2d(plane, (1, wanted[1]) if axis else (wanted[0], 1))

    return _averaged(reading, name, x, along)


def _batch_norm(reading: Reading, name: str, layer: nn.modules.batchnorm._BatchNorm, x: Value) -> Value:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        raise Unreadable("it has no running statistics, so an output depends on the rest of its batch")
    weight = torch.ones_like(mean) if layer.weight is None else layer.weight
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
    wide = [tensor.view(-1, *[1] * (x.example.dim() - 2)) for tensor in (mean, variance, weight, bias)]
    return reading.add(name, Normalise(wide[0], wide[1], wide[2], wide[3], layer.eps), x)


def _reshaping(method: str) -> Callable[..., Value]:
    """The reader of a method that keeps the order of the values."""

    def layer(reading: Reading, name: str, x: Value, *args: Any, **kwargs: Any) -> Value:
        return arithmetic.reshaped(reading, name, x, getattr(x.example, method)(*args, **kwargs))

    return layer


def _same(reading: Reading, name: str, x: Value, *args: Any, **kwargs: Any) -> Value:
    return x


def _dropout(
    reading: Reading, name: str, x: Value, p: float = 0.5, training: bool = True, inplace: object = None
) -> Value:
    if training and p:
        raise Unreadable("it drops values also in eval mode")
    return x


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _shape(reading: Reading, name: str, x: Value, *args: Any, **kwargs: Any) -> Any:
    return x.example.size(*args, **kwargs)


def _attribute(reading: Reading, name: str, x: Value, attribute: str) -> Any:
    if attribute not in ("shape", "ndim", "dtype", "device"):
        raise Unreadable(f"its attribute {attribute!r} is not supported")
    return getattr(x.example, attribute)


def _item(reading: Reading, name: str, something: Any, place: Any) -> Any:
    if isinstance(something, Value):
        return arithmetic.moved(operator.getitem, reading, name, something, place)
    return something[place]


def _moving(call: Callable[..., Any]) -> Callable[..., Any]:
    """The reader of a function that puts values in another order, or takes some of them."""
    return functools.partial(arithmetic.moved, call)


def _convolution(reading: Reading, name: str, layer: nn.Conv2d, x: Value) -> Value:
    if layer.padding_mode != "zeros":
        raise Unreadable(f"it pads by {layer.padding_mode!r}, where only zeros can be read")
    rest = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return _conv2d(reading, name, x, layer.weight, layer.bias, *rest)


MODULES: dict[type[nn.Module], Callable[[Reading, str, Any, Value], Value]] = {
    nn.Linear: lambda r, n, m, x: _linear(r, n, x, m.weight, m.bias),
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda r, n, m, x: _relu(r, n, x),
    nn.ReLU6: lambda r, n, m, x: arithmetic.clamped(r, n, x, 0, 6),
    nn.Hardtanh: lambda r, n, m, x: arithmetic.clamped(r, n, x, m.min_val, m.max_val),
    nn.ZeroPad2d: lambda r, n, m, x: arithmetic.padded(r, n, x, m.padding),
    nn.ConstantPad2d: lambda r, n, m, x: arithmetic.padded(r, n, x, m.padding, "constant", m.value),
    nn.ReflectionPad2d: lambda r, n, m, x: arithmetic.padded(r, n, x, m.padding, "reflect"),
    nn.ReplicationPad2d: lambda r, n, m, x: arithmetic.padded(r, n, x, m.padding, "replicate"),
    nn.Sigmoid: lambda r, n, m, x: _sigmoid(r, n, x),
    nn.Tanh: lambda r, n, m, x: _tanh(r, n, x),
    nn.LeakyReLU: lambda r, n, m, x: _leaky_relu(r, n, x, m.negative_slope),
    nn.MaxPool2d: lambda r, n, m, x: _max_pool2d(
        r, n, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda r, n, m, x: _avg_pool2d(
        r, n, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda r, n, m, x: _adaptive_avg_pool2d(r, n, x, m.output_size),
    nn.Flatten: lambda r, n, m, x: arithmetic.reshaped(r, n, x, m(x.example)),
    nn.Unflatten: lambda r, n, m, x: arithmetic.reshaped(r, n, x, m(x.example)),
    nn.Identity: lambda r, n, m, x: x,
    nn.Dropout: lambda r, n, m, x: x,
    nn.Dropout1d: lambda r, n, m, x: x,
    nn.Dropout2d: lambda r, n, m, x: x,
}
"""By the type of a layer; in eval mode."""

MOVING = (
    *("chunk", "split", "permute", "transpose", "select", "narrow", "flip", "index_select", "unbind"),
    *("movedim", "roll", "tile", "expand"),
)
"""Names of functions and methods that move values, or take a part of them."""

CALLS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), _relu),
    functional.leaky_relu: _leaky_relu,
    **dict.fromkeys((functional.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), _sigmoid),
    **dict.fromkeys((functional.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), _tanh),
    functional.linear: _linear,
    **dict.fromkeys((functional.conv2d, torch.conv2d), _conv2d),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _max_pool2d),
    **dict.fromkeys((functional.avg_pool2d, torch._C._nn.avg_pool2d), _avg_pool2d),
    functional.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    **dict.fromkeys((torch.mean, "mean"), arithmetic.mean),
    **dict.fromkeys((torch.sum, "sum"), arithmetic.total),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip", "clamp_"), arithmetic.clamped),
    functional.relu6: lambda r, n, x, inplace=None: arithmetic.clamped(r, n, x, 0, 6),
    functional.hardtanh: lambda r, n, x, min_val=-1.0, max_val=1.0, inplace=None: arithmetic.clamped(
        r, n, x, min_val, max_val
    ),
    **dict.fromkeys((functional.pad, torch._C._nn.pad), arithmetic.padded),
    **dict.fromkeys((functional.dropout, functional.dropout2d), _dropout),
    **dict.fromkeys((torch.cat, torch.concat), arithmetic.concatenated),
    torch.stack: arithmetic.stacked,
    **{
        getattr(owner, name): _moving(getattr(owner, name))
        for name in MOVING
        for owner in (torch, Tensor)
        if hasattr(owner, name)
    },
    **{name: _moving(getattr(Tensor, name)) for name in MOVING},
    operator.getitem: _item,
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), arithmetic.add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), arithmetic.sub),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), arithmetic.mul),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div", "div_"), arithmetic.div),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), arithmetic.neg),
    **{
        method: _reshaping(method)
        for method in ("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten")
    },
    **{
        call: _reshaping(call.__name__)
        for call in (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze)
    },
    **dict.fromkeys(("contiguous", "float", "clone", "detach"), _same),
    "size": _shape,
    getattr: _attribute,
}
"""By a function, or the name of a tensor's method."""
