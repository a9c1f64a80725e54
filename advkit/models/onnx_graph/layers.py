"""ONNX operations that are layers: convolutions, linear layers, normalisation, pooling, reductions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from advkit.models.onnx_graph.arrange import padded, reshaped
from advkit.models.onnx_graph.building import Constant, Read, Unread, Value
from advkit.models.onnx_graph.elementwise import two
from advkit.models.onnx_graph.operation import OPERATIONS, Call, operation, own_axes

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


@dataclass(frozen=True)
class _Windows:
    """How a window moves over an image."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    excess: tuple[int, ...]
    """How far the last window reaches beyond the padding; negative where it ends inside."""

    @property
    def even(self) -> bool:
        """Both sides are padded alike."""
        return self.before == self.after

    def edges(self, *, whole: bool) -> dict[int, tuple[int, int]]:
        """What is added to each dimension, with the excess if the ``whole`` last window is wanted."""
        rest = [max(length, 0) if whole else 0 for length in self.excess]
        sides = zip(self.before, self.after, rest, strict=True)
        return {
            k + 2: (one, other + more) for k, (one, other, more) in enumerate(sides) if one or other + more
        }


def _windows(call: Call, x: Read, kernel: tuple[int, ...]) -> _Windows:
    """Those of a convolution or pooling, for the size of ``x``."""
    n = len(kernel)
    if x.rank != n + 2 or set(x.batch_axes) - {0}:
        raise Unread(f"its input has the shape {list(x.shape())}, where images for {n} dimensions are wanted")
    stride = tuple(call.attribute("strides", (1,) * n))
    dilation = tuple(call.attribute("dilations", (1,) * n))
    pads = list(call.attribute("pads", (0,) * 2 * n))
    if not len(stride) == len(dilation) == len(pads) / 2 == n or min((*stride, *dilation, *kernel)) < 1:
        raise Unread("its strides, dilations and pads do not fit its kernel")
    span = [dilation[k] * (kernel[k] - 1) + 1 for k in range(n)]
    size = x.shape()[2:]
    auto = call.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * n
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        convolves = call.node.op_type == "Conv"
        if max(dilation) > 1 and not convolves:
            raise Unread(
                "it pads for windows with gaps as auto_pad says, which every runtime does in its own way"
            )
        total = [(math.ceil(size[k] / stride[k]) - 1) * stride[k] + span[k] - size[k] for k in range(n)]
        total = [max(length, 0) for length in total] if convolves else total  # as onnxruntime does
        first = [int((length + (auto == "SAME_LOWER")) / 2) for length in total]
        pads = [*first, *(whole - part for whole, part in zip(total, first, strict=True))]
    elif auto != "NOTSET":
        raise Unread(f"its auto_pad is {auto!r}")
    before, after = pads[:n], pads[n:]
    rounded = math.ceil if call.attribute("ceil_mode", 0) else math.floor
    excess = []
    for k in range(n):
        count = rounded((size[k] + before[k] + after[k] - span[k]) / stride[k]) + 1
        if (count - 1) * stride[k] >= size[k] + before[k]:
            count -= 1  # a window that would begin in the padding behind
        if count < 1:
            raise Unread(f"its windows are larger than its input of {list(size)}")
        excess.append((count - 1) * stride[k] + span[k] - size[k] - before[k] - after[k])
    return _Windows(kernel, stride, dilation, tuple(before), tuple(after), tuple(excess))


def _of_rank(kinds: tuple[Any, ...], n: int) -> Any:
    if not 1 <= n <= len(kinds):
        raise Unread(f"it works on images of {n} dimensions")
    return kinds[n - 1]


@operation("Conv")
def _conv(call: Call) -> Any:
    x, weight, bias = call[0], call.constant(1), call.optional(2)
    groups = call.attribute("group", 1)
    n = weight.dim() - 2
    kind = _of_rank(_CONV, n)
    w = _windows(call, x, tuple(weight.shape[2:]))
    padding = w.before
    if not w.even or min(w.before) < 0:
        x, weight, padding = _evened(call, x, weight, w)
    module = kind(
        weight.shape[1] * groups,
        len(weight),
        tuple(weight.shape[2:]),
        w.stride,
        padding,
        w.dilation,
        groups,
        bias=bias is not None,
        device="meta",
    )
    return call.layer(module, x, weight=weight, bias=bias)


def _evened(call: Call, x: Read, weight: Tensor, w: _Windows) -> tuple[Read, Tensor, tuple[int, ...]]:
    """The same convolution padded alike on both sides, with a kernel that has zeros on one; else one of an
    image that was padded before."""
    n = len(w.kernel)
    more = [w.after[k] - w.before[k] for k in range(n)]
    if min((*w.before, *w.after)) < 0 or any(more[k] % w.dilation[k] for k in range(n)):
        return padded(call, x, w.edges(whole=False)), weight, (0,) * n
    rims = [
        length
        for k in reversed(range(n))
        for length in (max(more[k], 0) // w.dilation[k], max(-more[k], 0) // w.dilation[k])
    ]
    return x, functional.pad(weight, rims), tuple(map(max, w.before, w.after))


@operation("ConvTranspose")
def _conv_transpose(call: Call) -> Any:
    x, weight, bias = call[0], call.constant(1), call.optional(2)
    n = weight.dim() - 2
    if call.attribute("output_shape") is not None or call.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise Unread("it says how large its output is in place of how it is padded")
    pads, groups = list(call.attribute("pads", (0,) * 2 * n)), call.attribute("group", 1)
    if pads[:n] != pads[n:]:
        raise Unread("it pads one side more than the other")
    module = _of_rank(_TRANSPOSED, n)(
        len(weight),
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        tuple(call.attribute("strides", (1,) * n)),
        tuple(pads[:n]),
        tuple(call.attribute("output_padding", (0,) * n)),
        groups,
        bias is not None,
        tuple(call.attribute("dilations", (1,) * n)),
        device="meta",
    )
    return call.layer(module, x, weight=weight, bias=bias)


def _linear(call: Call, x: Read, weight: Tensor, bias: Tensor | None = None) -> Any:
    outputs, inputs = weight.shape
    return call.layer(nn.Linear(inputs, outputs, bias is not None, "meta"), x, weight=weight, bias=bias)


@operation("Gemm")
def _gemm(call: Call) -> Any:
    x, y, added = call[0], call[1], call.get(2)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    if call.attribute("transA", 0):
        if not isinstance(x, Constant):
            raise Unread("it transposes the images' values, which mixes the images of a batch")
        x = call.call(torch.permute, x, (1, 0))
    if isinstance(x, Value) and isinstance(y, Constant) and x.rank == y.rank == 2 and x.batch_axes == [0]:
        weight = y.only if call.attribute("transB", 0) else y.only.T
        weight = weight if alpha == 1 else weight * alpha
        if added is None:
            return _linear(call, x, weight)
        if (
            isinstance(added, Constant)
            and added.only.numel() in (1, len(weight))
            and added.shape()[:-1]
            in (
                (),
                (1,),
            )
        ):
            bias = added.only.flatten().expand(len(weight))
            return _linear(call, x, weight, bias if beta == 1 else bias * beta)
    if call.attribute("transB", 0):
        y = call.call(torch.permute, y, (1, 0))
    found = call.call(torch.matmul, x, y)
    found = found if alpha == 1 else call.call(operator.mul, found, alpha)
    if added is None:
        return found
    return two(call, operator.add, found, added if beta == 1 else call.call(operator.mul, added, beta))


@operation("MatMul")
def _matmul(call: Call) -> Any:
    x, y = call[0], call[1]
    if isinstance(x, Value) and isinstance(y, Constant) and y.rank == 2 and x.rank > 1:
        own_axes(x, [-1])
        return _linear(call, x, y.only.T)
    for one, axis in ((x, -1), (y, -2 if y.rank > 1 else -1)):
        own_axes(one, [axis])
    return call.call(torch.matmul, x, y)


@operation("BatchNormalization")
def _batch_norm(call: Call) -> Any:
    call.unused(*range(1, 5))
    if call.attribute("training_mode", 0):
        raise Unread("it is in training mode, so that an image's class depends on the rest of its batch")
    x, (weight, bias, mean, variance) = call[0], (call.constant(k) for k in range(1, 5))
    kind = _of_rank(_NORM, max(x.rank - 2, 1))
    module = kind(len(weight), call.attribute("epsilon", 1e-5), device="meta")
    return call.layer(
        module,
        x,
        weight=weight,
        bias=bias,
        running_mean=mean,
        running_var=variance,
        num_batches_tracked=torch.tensor(0),
    )


@operation("LayerNormalization")
def _layer_norm(call: Call) -> Any:
    call.unused(1, 2)
    x, weight = call[0], call[1]
    first = own_axes(x, [call.attribute("axis", -1)])[0]
    own_axes(x, range(first, x.rank))
    shape = x.shape()[first:]
    extra = [
        one if one is None or one.shape() == shape else call.call(torch.broadcast_to, one, shape)
        for one in (weight, call.get(2))
    ]
    return call.call(functional.layer_norm, x, shape, *extra, call.attribute("epsilon", 1e-5))


@operation("InstanceNormalization")
def _instance_norm(call: Call) -> Any:
    rest = call[1], call[2], True, 0.0, call.attribute("epsilon", 1e-5)
    return call.call(functional.instance_norm, call[0], None, None, *rest)


@operation("LRN")
def _response_norm(call: Call) -> Any:
    size, alpha, beta = call.attribute("size"), call.attribute("alpha", 1e-4), call.attribute("beta", 0.75)
    return call.call(functional.local_response_norm, call[0], size, alpha, beta, call.attribute("bias", 1.0))


@operation("MaxPool")
def _max_pool(call: Call) -> Any:
    call.unused(1)
    x, n = call[0], len(call.attribute("kernel_shape"))
    kind = _of_rank(_MAX, n)
    w = _windows(call, x, tuple(call.attribute("kernel_shape")))
    if w.even and min(w.before) >= 0 and all(2 * w.before[k] <= w.kernel[k] for k in range(n)):
        rounded = bool(call.attribute("ceil_mode", 0))
        return call.layer(kind(w.kernel, w.stride, w.before, w.dilation, ceil_mode=rounded), x)
    x = padded(call, x, w.edges(whole=True), value=-math.inf)
    return call.layer(kind(w.kernel, w.stride, 0, w.dilation), x)


@operation("AveragePool")
def _average_pool(call: Call) -> Any:
    x, n = call[0], len(call.attribute("kernel_shape"))
    kind, counted = _of_rank(_AVERAGE, n), bool(call.attribute("count_include_pad", 0))
    w = _windows(call, x, tuple(call.attribute("kernel_shape")))
    if max(w.dilation) > 1:
        raise Unread("it averages over a window with gaps")
    if w.even and min(w.before) >= 0 and all(2 * w.before[k] <= w.kernel[k] for k in range(n)):
        rounded = bool(call.attribute("ceil_mode", 0))
        return call.layer(kind(w.kernel, w.stride, w.before, rounded, counted), x)
    pool = kind(w.kernel, w.stride)
    ones = torch.ones(1, 1, *x.shape()[2:])
    inner = padded(call, Constant((ones, ones)), w.edges(whole=False), value=float(counted))
    rest = {k + 2: (0, length) for k, length in enumerate(w.excess) if length > 0}
    share = call.call(pool, padded(call, inner, rest))
    summed = call.layer(pool, padded(call, x, w.edges(whole=True)))
    return call.call(operator.truediv, summed, Constant(share.of, "share", trained=False))


@operation("GlobalAveragePool")
def _global_average(call: Call) -> Any:
    if call[0].rank == 4:
        return call.layer(nn.AdaptiveAvgPool2d(1), call[0])
    return call.call(torch.mean, call[0], tuple(range(2, call[0].rank)), keepdim=True)


@operation("GlobalMaxPool")
def _global_max(call: Call) -> Any:
    return call.call(torch.amax, call[0], tuple(range(2, call[0].rank)), keepdim=True)


def _norm(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keepdim)
    return found


def _reduce(function: Callable[..., Any], call: Call) -> Any:
    x, since = call[0], 13 if call.node.op_type == "ReduceSum" else 18
    axes = call.axes(since)
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.rank))
    return call.call(function, x, tuple(own_axes(x, axes)), keepdim=bool(call.attribute("keepdims", 1)))


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": _norm,
    "ReduceLogSumExp": torch.logsumexp,
}
for _name, _made in _REDUCTIONS.items():
    OPERATIONS[_name] = partial(_reduce, _made)


@operation("ArgMax")
def _argmax(call: Call) -> Any:
    (axis,) = own_axes(call[0], [call.attribute("axis", 0)])
    return call.call(torch.argmax, call[0], axis, keepdim=bool(call.attribute("keepdims", 1)))


def _softmax(function: Callable[..., Any], call: Call) -> Any:
    x = call[0]
    axis = call.attribute("axis", 1 if call.opset < 13 else -1)
    axis = own_axes(x, [axis])[0]
    if call.opset >= 13 or axis == x.rank - 1:
        return call.call(function, x, axis)
    sizes = [x.shape(i) for i in (0, 1)]
    flat = reshaped(call, x, [[*size[:axis], math.prod(size[axis:])] for size in sizes])
    return reshaped(call, call.call(function, flat, axis), [list(size) for size in sizes])


for _name, _made in {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}.items():
    OPERATIONS[_name] = partial(_softmax, _made)
