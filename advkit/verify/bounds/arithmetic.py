"""Readers of arithmetic with constants, sums, clamps, and of what moves values elsewhere; see `layers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from advkit.verify.bounds.affine import Scale
from advkit.verify.bounds.arrange import Concatenation, Gather, Reshape, Sum, Total
from advkit.verify.bounds.reading import Reading, Unreadable, Value
from advkit.verify.bounds.relaxation import Relu


def concatenated(reading: Reading, name: str, tensors: Sequence[Any], dim: int = 0) -> Value:
    """A concatenation."""
    if not all(isinstance(x, Value) for x in tensors) or dim % tensors[0].example.dim() == 0:
        raise Unreadable("only a concatenation of values of the images, not of images, can be read")
    dim %= tensors[0].example.dim()
    if dim != 1:
        turned = [moved(torch.transpose, reading, name, x, 1, dim) for x in tensors]
        whole: Value = moved(torch.transpose, reading, name, concatenated(reading, name, turned, 1), 1, dim)
        return whole
    return reading.add(name, Concatenation(tuple(x.example.shape[1] for x in tensors)), *tensors)


def stacked(reading: Reading, name: str, tensors: Sequence[Any], dim: int = 0) -> Value:
    """A concatenation along a new dimension."""
    if not all(isinstance(x, Value) for x in tensors):
        raise Unreadable("only a concatenation of values of the images can be read")
    apart = [reshaped(reading, name, x, x.example.unsqueeze(dim)) for x in tensors]
    return concatenated(reading, name, apart, dim)


def reshaped(reading: Reading, name: str, x: Value, result: Tensor) -> Value:
    """``result`` has the values of ``x`` in the same order."""
    if result.shape[:1] != x.example.shape[:1]:
        raise Unreadable("it mixes the images of a batch")
    op = Reshape(x.size, tuple(result.shape[1:]) or (1,))
    return reading.add(name, op, x, number=result.dim() == 1)


def moved(call: Callable[..., Any], reading: Reading, name: str, x: Value, *args: Any, **kwargs: Any) -> Any:
    """What ``call`` does, if it moves values, or takes a part of them: a tensor, or several."""
    if not all(isinstance(one, int | slice | str | tuple | list | Tensor) for one in args):
        raise Unreadable("it chooses values by values of the images")
    count = x.example[0].numel()
    places = torch.arange(2 * count, device=x.example.device).view(x.example.shape)
    try:
        found = call(places, *args, **kwargs)
    except (RuntimeError, IndexError) as error:
        raise Unreadable(str(error).splitlines()[0].rstrip(".")) from error
    several = isinstance(found, tuple | list)
    values = []
    for part in found if several else (found,):
        if part.shape[:1] != (2,) or not part.numel() or (part[1] - part[0] != count).any():
            raise Unreadable("it mixes the images of a batch, or leaves nothing")
        op = Gather(x.size, part[0].view(part.shape[1:] or (1,)))
        values.append(reading.add(name, op, x, number=part.dim() == 1))
    return values if several else values[0]


def padded(
    reading: Reading,
    name: str,
    x: Value,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    """An edge of constants or copies."""
    if len(pad) // 2 >= x.example.dim():
        raise Unreadable("it pads the batch")
    count = x.example[0].numel()
    places = torch.arange(count, dtype=torch.float64).view(1, *x.example.shape[1:])
    if mode == "constant":
        found = functional.pad(places, tuple(pad), mode, count)
    else:
        found = functional.pad(places, tuple(pad), mode)
    op = Gather(x.size, found[0].long().to(x.example.device), float(value or 0.0))
    return reading.add(name, op, x)


def total(reading: Reading, name: str, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """A sum over some dimensions."""
    rank = x.example.dim()
    chosen = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    over = tuple(sorted({d % rank for d in chosen}))
    if not over or 0 in over:
        raise Unreadable("it sums over the images of a batch")
    summed = reading.add(name, Total(x.size, over), x)
    return summed if keepdim else reshaped(reading, name, summed, x.example.sum(over))


def mean(reading: Reading, name: str, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """A mean over some dimensions."""
    summed = total(reading, name, x, dim, keepdim)
    return div(reading, name, summed, x.example.numel() // summed.example.numel())


def clamped(
    reading: Reading, name: str, x: Value, min: float | None = None, max: float | None = None
) -> Value:
    """Values between two constants, as ReLUs: the larger of x and c is c + relu(x - c)."""
    if any(isinstance(end, Tensor | Value) for end in (min, max)):
        raise Unreadable("its ends are no numbers")
    if min is not None:
        x = add(reading, name, reading.add(name, Relu(), sub(reading, name, x, min)), min)
    if max is not None:
        x = sub(reading, name, max, reading.add(name, Relu(), sub(reading, name, max, x)))
    return x


def _sum(reading: Reading, name: str, x: Any, y: Any, sign: int) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        return reading.add(name, Sum(sign), *_alike(reading, name, x, y))
    if isinstance(x, Value):
        constant = _constant(x, y)
        return reading.add(name, Scale(torch.ones_like(constant), sign * constant), x)
    constant = _constant(y, x)
    return reading.add(name, Scale(torch.full_like(constant, sign), constant), y)


def add(reading: Reading, name: str, x: Any, y: Any, *, alpha: float = 1) -> Value:
    """x + y"""
    if alpha != 1:
        raise Unreadable("a sum with a factor cannot be read")
    return _sum(reading, name, x, y, 1)


def sub(reading: Reading, name: str, x: Any, y: Any, *, alpha: float = 1) -> Value:
    """x - y"""
    if alpha != 1:
        raise Unreadable("a difference with a factor cannot be read")
    return _sum(reading, name, x, y, -1)


def mul(reading: Reading, name: str, x: Any, y: Any) -> Value:
    """x * y, one of them a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        raise Unreadable("a product of two values that depend on the image is not linear")
    value, other = (x, y) if isinstance(x, Value) else (y, x)
    return reading.add(name, Scale(_constant(value, other), None), value)


def div(reading: Reading, name: str, x: Any, y: Any, *, rounding_mode: None = None) -> Value:
    """x / y, for a constant y."""
    if isinstance(y, Value) or rounding_mode is not None:
        raise Unreadable("dividing by a value that depends on the image is not linear")
    return reading.add(name, Scale(1 / _constant(x, y), None), x)


def neg(reading: Reading, name: str, x: Value) -> Value:
    """-x"""
    return mul(reading, name, x, -1.0)


def _alike(reading: Reading, name: str, *values: Value) -> list[Value]:
    """Values of one shape, by repeating what PyTorch repeats."""
    try:
        shape = torch.broadcast_shapes(*(value.example.shape for value in values))
    except RuntimeError as error:
        raise Unreadable("it adds values of different shapes") from error
    repeat = Tensor.expand
    return [x if x.example.shape == shape else moved(repeat, reading, name, x, tuple(shape)) for x in values]


def _constant(x: Value, constant: Any) -> Tensor:
    """Of the shape of an image's values."""
    like = x.example.view(2, *x.size)
    try:
        full = torch.as_tensor(constant, dtype=like.dtype, device=like.device).broadcast_to(like.shape)
    except RuntimeError as error:
        raise Unreadable(
            f"a constant has shape {tuple(constant.shape)} but the values have {tuple(like.shape[1:])}"
        ) from error
    if not torch.equal(full[0], full[1]):
        raise Unreadable("a constant differs from image to image")
    return full[0]
