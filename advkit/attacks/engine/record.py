"""Dataclasses of tensors that share their first dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor


class TensorRecord:
    """Base of dataclasses whose fields are tensors, or records of tensors, with one entry a row.

    A field may be None for all rows.
    """

    def __len__(self) -> int:
        first: Any = getattr(self, fields(self)[0].name)  # type: ignore[arg-type]
        return len(first)

    def take(self, index: Tensor) -> Self:
        """The rows ``index``, in that order."""
        return type(self)(**{name: _take(value, index) for name, value in self._values()})

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """All rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {}
        for name, value in parts[0]._values():
            columns = [getattr(part, name) for part in parts]
            if isinstance(value, TensorRecord):
                joined[name] = type(value).cat(columns)
            else:
                joined[name] = None if value is None else torch.cat(columns)
        return cls(**joined)

    def where(self, mask: Tensor, other: Self) -> Self:
        """These rows where ``mask`` (R,) is true, those of ``other`` elsewhere."""
        theirs = dict(other._values())
        return type(self)(**{name: _where(mask, value, theirs[name]) for name, value in self._values()})

    def put(self, mask: Tensor, **new: Tensor | float) -> None:
        """Gives fields new values, or a number, in the rows where ``mask`` (R,) is true."""
        for name, value in new.items():
            before = getattr(self, name)
            setattr(self, name, torch.where(column(mask, before), value, before))

    def _values(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]


def _take(value: Any, index: Tensor) -> Any:
    if isinstance(value, TensorRecord):
        return value.take(index)
    return None if value is None else value[index]


def _where(mask: Tensor, value: Any, other: Any) -> Any:
    if value is other:
        return value
    if isinstance(value, TensorRecord):
        return value.where(mask, other)
    return torch.where(column(mask, value), value, other)


def column(values: Tensor, like: Tensor) -> Tensor:
    """(N,) values shaped to broadcast over rows of ``like`` (N, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def assign_(values: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """``values``, in place, with the rows of ``source`` where ``mask`` (N,) is true."""
    if values.device.type == "cpu":  # this test is free there, and usually few rows change
        index = mask.nonzero()[:, 0]
        return values.index_copy_(0, index, source.index_select(0, index))
    return torch.where(column(mask, values), source, values, out=values)


def revise_(
    values: Sequence[Tensor], mask: Tensor, revise: Callable[..., Sequence[Tensor]], *given: Tensor
) -> None:
    """Writes ``revise(*given)`` into ``values``, in place, in the rows where ``mask`` (N,) is true.

    On the CPU only those rows are computed.
    """
    if mask.device.type == "cpu":
        index = mask.nonzero()[:, 0]
        if len(index):
            for value, new in zip(values, revise(*(one[index] for one in given)), strict=True):
                value.index_copy_(0, index, new)
        return
    for value, new in zip(values, revise(*given), strict=True):
        torch.where(column(mask, value), new, value, out=value)
