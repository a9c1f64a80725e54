"""ONNX operations on each value alone, or on two of the same place."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from advkit.models.onnx_graph.building import Constant, Read, Unread, Value
from advkit.models.onnx_graph.operation import OPERATIONS, Call, operation

_FLOATS = {1, 10, 11, 16}
"""``TensorProto`` numbers of floating-point types, all of which are computed in the network's own."""
_INTEGERS = {2: torch.int64, 3: torch.int8, 4: torch.int64, 5: torch.int16, 6: torch.int32, 7: torch.int64}
_CASTS = {
    **dict.fromkeys(_FLOATS, torch.float32),
    **_INTEGERS,
    9: torch.bool,
    12: torch.int64,
    13: torch.int64,
}


def _function(function: Callable[..., Any], call: Call) -> Any:
    return call.call(function, *(call[k] for k in range(len(call.inputs))))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Where": torch.where,
}
for _name, _made in _FUNCTIONS.items():
    OPERATIONS[_name] = partial(_function, _made)


def _layer(make: Callable[[Call], nn.Module], call: Call) -> Any:
    return call.layer(make(call), call[0])


for _name, _make in {
    "Relu": lambda call: nn.ReLU(),
    "LeakyRelu": lambda call: nn.LeakyReLU(call.attribute("alpha", 0.01)),
    "Sigmoid": lambda call: nn.Sigmoid(),
    "Tanh": lambda call: nn.Tanh(),
    "Elu": lambda call: nn.ELU(call.attribute("alpha", 1.0)),
    "Celu": lambda call: nn.CELU(call.attribute("alpha", 1.0)),
    "Softplus": lambda call: nn.Softplus(threshold=80),
    "HardSwish": lambda call: nn.Hardswish(),
    "Mish": lambda call: nn.Mish(),
    "Gelu": lambda call: nn.GELU(call.attribute("approximate", "none")),
}.items():
    OPERATIONS[_name] = partial(_layer, _make)


@operation("Identity")
def _identity(call: Call) -> Any:
    return call[0]


@operation("Dropout")
def _dropout(call: Call) -> Any:
    call.unused(1)
    if call.optional(2):
        raise Unread("it drops values also when the network is used")
    return call[0]


@operation("Cast", "CastLike")
def _cast(call: Call) -> Any:
    x = call[0]
    like = call.node.op_type == "CastLike"
    kind = _kind(call[1]) if like else _CASTS.get(call.attribute("to"), torch.complex64)
    if kind == torch.complex64:
        raise Unread("it casts to a type that no classifier computes with")
    if _kind(x) == kind:
        return x
    if isinstance(x, Value) and not kind.is_floating_point:
        raise Unread("it rounds values that depend on the images to whole numbers, which have no gradients")
    return call.call(Tensor.to, x, kind)


def _kind(x: Read) -> torch.dtype:
    one, _ = x.like if isinstance(x, Value) else x.of
    return one.dtype


def plain(x: Read, rank: int) -> Any:
    """A constant of one number as that number, if the result has the other's shape all the same."""
    if isinstance(x, Constant) and x.of[0].numel() == 1 and x.rank <= rank and x.of[0] is x.of[1]:
        if not math.isfinite(number := x.of[0].item()):
            raise Unread(f"it computes with {number}")
        return number
    return x


def _arithmetic(function: Callable[..., Any], call: Call) -> Any:
    found = [call[k] for k in range(len(call.inputs))]
    return reduce(partial(two, call, function), found)


def two(call: Call, function: Callable[..., Any], x: Read, y: Read) -> Any:
    """A function of two tensors; a single number stays one, as the rest of advkit reads it."""
    if isinstance(x, Constant) and isinstance(y, Constant):
        return call.call(function, x, y)
    return call.call(function, plain(x, y.rank), plain(y, x.rank))


for _name, _made in {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Sum": operator.add,
    "Pow": operator.pow,
}.items():
    OPERATIONS[_name] = partial(_arithmetic, _made)


for _name, _made in {"Max": torch.maximum, "Min": torch.minimum}.items():
    OPERATIONS[_name] = partial(lambda made, call: reduce(partial(call.call, made), call.inputs), _made)


@operation("Div")
def _div(call: Call) -> Any:
    x, y = call[0], call[1]
    if isinstance(x, Constant) and isinstance(y, Constant) and not x.of[0].is_floating_point():
        return call.call(torch.div, x, y, rounding_mode="trunc")
    return two(call, operator.truediv, x, y)


@operation("Mod")
def _mod(call: Call) -> Any:
    return call.call(torch.fmod if call.attribute("fmod", 0) else torch.remainder, call[0], call[1])


@operation("Mean")
def _mean(call: Call) -> Any:
    total = _arithmetic(operator.add, call)
    return call.call(operator.truediv, total, len(call.inputs))


@operation("Clip")
def _clip(call: Call) -> Any:
    low, high = (
        call.attribute(name)
        if call.opset < 11
        else None
        if (found := call.optional(k)) is None
        else found.item()
        for k, name in ((1, "min"), (2, "max"))
    )
    if (low, high) == (0, None):
        return call.layer(nn.ReLU(), call[0])
    if (low, high) == (0, 6):
        return call.layer(nn.ReLU6(), call[0])
    return call[0] if low is high is None else call.call(torch.clamp, call[0], low, high)


@operation("Selu")
def _selu(call: Call) -> Any:
    alpha, gamma = call.attribute("alpha", 1.6732632), call.attribute("gamma", 1.0507010)
    if (round(alpha, 5), round(gamma, 5)) == (1.67326, 1.0507):
        return call.layer(nn.SELU(), call[0])
    return call.call(operator.mul, call.layer(nn.ELU(alpha), call[0]), gamma)


@operation("HardSigmoid")
def _hard_sigmoid(call: Call) -> Any:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    line = call.call(operator.add, call.call(operator.mul, call[0], alpha), beta)
    return call.call(torch.clamp, line, 0, 1)


@operation("ThresholdedRelu")
def _thresholded(call: Call) -> Any:
    return call.call(functional.threshold, call[0], call.attribute("alpha", 1.0), 0.0)


@operation("PRelu")
def _prelu(call: Call) -> Any:
    slope = call.constant(1)
    if slope.numel() == 1:
        return call.layer(nn.LeakyReLU(slope.item()), call[0])
    positive = call.layer(nn.ReLU(), call[0])
    rest = call.call(operator.sub, call[0], positive)
    return call.call(operator.add, positive, call.call(operator.mul, rest, call[1]))
