"""Readers of sums, products with constants, concatenations and chunks; see `layers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from advkit.verify.bounds.affine import Scale
from advkit.verify.bounds.arrange import Concatenation, Slice, Sum
from advkit.verify.bounds.reading import Reading, Unreadable, Value


def concatenated(reading: Reading, name: str, tensors: Sequence[Any], dim: int = 0) -> Value:
    """A concatenation."""
    if not all(isinstance(x, Value) for x in tensors) or dim % tensors[0].example.dim() != 1:
        raise Unreadable("only a concatenation of values of the images along the first dimension can be read")
    return reading.add(name, Concatenation(tuple(x.example.shape[1] for x in tensors)), *tensors)


def chunks(reading: Reading, name: str, x: Value, chunks: int, dim: int = 0) -> list[Value]:
    """Parts of equal length."""
    if dim % x.example.dim() != 1:
        raise Unreadable("only parts along the first dimension of an image's values can be read")
    found, first = [], 0
    for part in x.example.chunk(chunks, 1):
        op = Slice(tuple(x.example.shape[1:]), first, part.shape[1])
        found.append(reading.add(name, op, x))
        first += part.shape[1]
    return found


def _sum(reading: Reading, name: str, x: Any, y: Any, sign: int) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        if x.example.shape != y.example.shape:
            raise Unreadable("it adds values of different shapes")
        return reading.add(name, Sum(sign), x, y)
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


def _constant(x: Value, constant: Any) -> Tensor:
    """Of the shape of an image's values."""
    like = x.example
    try:
        full = torch.as_tensor(constant, dtype=like.dtype, device=like.device).broadcast_to(like.shape)
    except RuntimeError as error:
        raise Unreadable(
            f"a constant has shape {tuple(constant.shape)} but the values have {tuple(like.shape[1:])}"
        ) from error
    if not torch.equal(full[0], full[1]):
        raise Unreadable("a constant differs from image to image")
    return full[0]
