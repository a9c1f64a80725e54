"""An fx graph under construction, with the shapes of its values for two sizes of batch.

Shapes are found on PyTorch's meta device, where nothing is allocated. A dimension that differs between the
two runs is the batch; so a graph that was exported for one image is read for any number of them.
"""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

BATCHES = (2, 3)
LARGEST = 2**28
"""Most numbers in one tensor, of an image or a constant."""
_TAKEN = {"graph", "code", "meta", "training"}


class Unread(Exception):
    """Something that cannot be read; the message says why."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that depends on the images."""

    node: fx.Node
    like: tuple[Tensor, Tensor]
    """On the meta device, for each of `BATCHES`."""
    turned: tuple[Value, tuple[int, ...]] | None = None
    """It is a permutation of another value."""
    outer: int = 1
    """How many times its batch dimension runs through all images."""

    def shape(self, batch: int = 0) -> tuple[int, ...]:
        """For one of `BATCHES`."""
        return tuple(self.like[batch].shape)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape())

    @property
    def batch_axes(self) -> list[int]:
        """Dimensions that grow with the batch."""
        pairs = zip(self.shape(0), self.shape(1), strict=True)
        return [axis for axis, (one, other) in enumerate(pairs) if one != other]


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the images, though perhaps on how many there are."""

    of: tuple[Tensor, Tensor]
    """For each of `BATCHES`."""
    name: str = "constant"
    trained: bool = True
    """It becomes a parameter, else a buffer."""

    @property
    def only(self) -> Tensor:
        """The tensor.

        Raises:
            Unread: there are two.
        """
        if not _same(*self.of):
            raise Unread("one of its constants depends on the number of images")
        return self.of[0]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape())

    def shape(self, batch: int = 0) -> tuple[int, ...]:
        """For one of `BATCHES`."""
        return tuple(self.of[batch].shape)

    @property
    def batch_axes(self) -> list[int]:
        """None, where it is read as one."""
        return []


Read = Value | Constant


class Building:
    """What has been read so far.

    Args:
        fixed: how many images the file was exported for; None for any number.
    """

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed
        self.root, self.graph = nn.Module(), fx.Graph()
        self.images: fx.Node | None = None
        self._held: dict[int, tuple[Tensor, str]] = {}

    def input(self, shape: tuple[int, ...]) -> Value:
        """The images, (N, *shape)."""
        self.images = self.graph.placeholder("images")
        return Value(self.images, self._within(lambda i: torch.empty(BATCHES[i], *shape, device="meta")))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A function of PyTorch on values and constants, which are positional; computed at once where
        there are only constants."""
        if not any(isinstance(one, Value) for one in _inside(args)):
            return self._computed(function, args, kwargs)
        like = self._within(lambda i: function(*_run(args, i, "meta"), **kwargs))
        node = self.graph.call_function(function, self._nodes(args), kwargs)
        if isinstance(like[0], Tensor):
            return _as_before(Value(node, like), _inside(args))
        parts = zip(*like, strict=True)
        return [
            Value(self.graph.call_function(operator.getitem, (node, k)), (one, other))
            for k, (one, other) in enumerate(parts)
        ]

    def layer(self, name: str, module: nn.Module, x: Read, **tensors: Tensor | None) -> Any:
        """A layer, which is on the meta device and is given its tensors."""
        module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)  # while shapes are found
        like = self._within(lambda i: module(_run(x, i, "meta")))
        for key, tensor in tensors.items():
            if tensor is None:
                continue
            is_buffer = key in dict(module.named_buffers(recurse=False))
            setattr(module, key, tensor if is_buffer else self._parameter(tensor))
        if isinstance(x, Constant):
            with torch.no_grad():
                return Constant(tuple(module(one) for one in x.of), name)
        target = self.name(name)
        self.root.add_module(target, module)
        return _as_before(Value(self.graph.call_module(target, (x.node,)), like), [x])

    def name(self, wanted: str) -> str:
        """A name for a layer or tensor, that Python can say and nothing has yet."""
        plain = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "constant"
        if (
            plain[0].isdigit()
            or keyword.iskeyword(plain)
            or plain in _TAKEN
            or hasattr(fx.GraphModule, plain)
        ):
            plain = f"node_{plain}"
        found, number = plain, 2
        while hasattr(self.root, found):
            found, number = f"{plain}_{number}", number + 1
        return found

    def module(self, output: Any) -> fx.GraphModule:
        """The network whose output is a value, or several by their names."""
        self.graph.output(
            fx.node.map_aggregate(output, lambda one: one.node if isinstance(one, Value) else one)
        )
        module = fx.GraphModule(self.root, self.graph, "OnnxNetwork")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.graph.lint()
        module.recompile()
        return module.eval()

    def _parameter(self, tensor: Tensor) -> nn.Parameter:
        return nn.Parameter(tensor.clone(memory_format=torch.contiguous_format))

    def _within(self, make: Callable[[int], Any]) -> Any:
        """What is made for both batches, if it is of a size that can be computed with."""
        with torch.no_grad():
            found = make(0), make(1)
        for batch, tensors in zip(BATCHES, found, strict=True):
            for tensor in tensors if isinstance(tensors, list | tuple) else [tensors]:
                if math.prod(tensor.shape) > batch * LARGEST:
                    raise Unread(
                        f"its result would have {math.prod(tensor.shape):,} values for {batch} images"
                    )
        return found

    def _computed(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A call on constants alone."""
        self._within(lambda i: function(*_run(args, i, "meta"), **kwargs))
        constants = [one for one in _inside(args) if isinstance(one, Constant)]
        with torch.no_grad():
            first = function(*_run(args, 0), **kwargs)
            alike = all(one.of[0] is one.of[1] for one in constants)
            second = first if alike else function(*_run(args, 1), **kwargs)
        if isinstance(first, Tensor):
            return Constant((first, second))
        return [Constant(pair) for pair in zip(first, second, strict=True)]

    def _nodes(self, something: Any) -> Any:
        """Arguments as the graph holds them."""
        if isinstance(something, tuple | list):
            return type(something)(self._nodes(one) for one in something)
        if isinstance(something, Value):
            return something.node
        return self._attribute(something) if isinstance(something, Constant) else something

    def _attribute(self, constant: Constant) -> fx.Node:
        one, other = constant.of
        if (one.shape[:1], other.shape[:1]) == ((BATCHES[0],), (BATCHES[1],)) and _repeated(one, other):
            row = self._attribute(Constant((one[:1], one[:1]), constant.name))
            count = self.graph.call_method("size", (self.images, 0))
            return self.graph.call_method("expand", (row, count, *[-1] * (one.dim() - 1)))
        tensor = constant.only
        if id(tensor) not in self._held:
            name = self.name(constant.name)
            if tensor.is_floating_point() and constant.trained:
                self.root.register_parameter(name, self._parameter(tensor))
            else:
                self.root.register_buffer(name, tensor.clone(memory_format=torch.contiguous_format))
            self._held[id(tensor)] = tensor, name  # the tensor too, so that its id stays its own
        return self.graph.get_attr(self._held[id(tensor)][1])


def _as_before(value: Value, inputs: list[Any]) -> Value:
    """With the images in the order of the input whose batch dimension is as long."""
    for one in inputs:
        if isinstance(one, Value) and one.outer > 1 and _lengths(one) == _lengths(value):
            return replace(value, outer=one.outer)
    return value


def _lengths(value: Value) -> list[int]:
    return [value.shape()[axis] for axis in value.batch_axes]


def _run(something: Any, batch: int, device: str | None = None) -> Any:
    """Arguments with tensors in place of values."""
    if isinstance(something, tuple | list):
        return type(something)(_run(one, batch, device) for one in something)
    if isinstance(something, Value):
        return something.like[batch]
    if isinstance(something, Constant):
        return something.of[batch] if device is None else something.of[batch].to(device)
    return something


def _inside(something: Any) -> list[Any]:
    """All that is in nested arguments."""
    if isinstance(something, tuple | list):
        return [one for part in something for one in _inside(part)]
    return [something]


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))


def _repeated(one: Tensor, other: Tensor) -> bool:
    return one.shape[1:] == other.shape[1:] and bool((one == one[:1]).all() and (other == one[:1]).all())
