"""The decorator for readers of ONNX operations, and the call that each is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from advkit.models.onnx_graph.building import Building, Constant, Read, Unread, Value
from advkit.models.onnx_graph.content import library, tensor_of


@dataclass(frozen=True)
class Call:
    """One node of an ONNX graph."""

    building: Building
    node: Any
    """``NodeProto``"""
    inputs: tuple[Read | None, ...]
    """None where an optional one is left out."""
    opset: int
    used: frozenset[str]
    """Names of values that are read by other nodes, or are outputs."""

    @property
    def name(self) -> str:
        """Of the layer that is made of it."""
        return self.node.name or f"{self.node.op_type}_{self.node.output[0]}"

    def __getitem__(self, place: int) -> Read:
        """An input that has to be there."""
        if (found := self.get(place)) is None:
            raise Unread(f"it has no input number {place + 1}")
        return found

    def get(self, place: int) -> Read | None:
        """An input, or None."""
        return self.inputs[place] if place < len(self.inputs) else None

    def constant(self, place: int) -> Tensor:
        """An input that must not depend on the images."""
        return self._known(place).only

    def optional(self, place: int) -> Tensor | None:
        """The same, if it is there."""
        return None if self.get(place) is None else self.constant(place)

    def integers(self, place: int, batch: int = 0) -> list[int]:
        """Integers that an input holds."""
        return [int(one) for one in self._known(place).of[batch].flatten().tolist()]

    def _known(self, place: int) -> Constant:
        if isinstance(found := self[place], Value):
            raise Unread(f"its input number {place + 1} depends on the images")
        return found

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node; text as str."""
        for one in self.node.attribute:
            if one.name == name:
                value = library().helper.get_attribute_value(one)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def tensor(self, name: str) -> Tensor:
        """An attribute that is a tensor."""
        return tensor_of(self.attribute(name), self.name)

    def axes(self, since: int, place: int = 1) -> list[int] | None:
        """The attribute ``axes``, which became an input in opset ``since``; None where there is none."""
        if self.opset < since:
            found = self.attribute("axes")
            return None if found is None else list(found)
        return None if self.get(place) is None else self.integers(place)

    def unused(self, *places: int) -> None:
        """Raises `Unread` if something reads an output that no classifier needs."""
        for place in places:
            if place < len(self.node.output) and self.node.output[place] in self.used:
                raise Unread(f"its output number {place + 1} is used")

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See `Building.call`."""
        return self.building.call(function, *args, **kwargs)

    def layer(self, module: nn.Module, x: Read, **tensors: Tensor | None) -> Any:
        """See `Building.layer`."""
        return self.building.layer(self.name, module, x, **tensors)


def own_axes(x: Read, axes: Sequence[int]) -> list[int]:
    """Dimensions as non-negative numbers, if the operation can be applied along them image by image."""
    found = [axis + x.rank if axis < 0 else axis for axis in axes]
    if any(not 0 <= axis < x.rank for axis in found):
        raise Unread(f"its axes {list(axes)} are not those of a tensor of {x.rank} dimensions")
    if set(found) & set(x.batch_axes):
        raise Unread("it works across the images of a batch, and a classifier looks at each alone")
    return found


Operation = Callable[[Call], Any]
OPERATIONS: dict[str, Operation] = {}
F = TypeVar("F", bound=Operation)


def operation(*names: str) -> Callable[[F], F]:
    """Decorator of the reader of standard operations: it gives the output, or a list of the outputs."""

    def enrol(reader: F) -> F:
        OPERATIONS.update(dict.fromkeys(names, reader))
        return reader

    return enrol


def pair(make: Callable[[int], Tensor], of: Constant | None = None) -> Constant:
    """A constant that may depend on the number of images; made ``of`` another."""
    one, other = make(0), make(1)
    alike = one.shape == other.shape and torch.equal(one, other)
    return Constant((one, one if alike else other), of.name if of else "constant")
