"""ONNX operations that compute no values: shapes, order, parts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from advkit.models.onnx_graph.building import BATCHES, LARGEST, Constant, Read, Unread, Value
from advkit.models.onnx_graph.operation import Call, operation, own_axes, pair


@operation("Constant")
def _constant(call: Call) -> Any:
    (given,) = call.node.attribute
    if given.name == "value":
        return Constant((found := call.tensor("value"), found), call.name)
    if given.name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise Unread(f"its {given.name!r} is nothing that a classifier computes with")
    kind = torch.float32 if "float" in given.name else torch.int64
    found = torch.tensor(call.attribute(given.name), dtype=kind)
    return Constant((found, found), call.name)


@operation("ConstantOfShape")
def _constant_of_shape(call: Call) -> Any:
    value = call.tensor("value") if call.attribute("value") is not None else torch.zeros(1)
    sizes = [call.integers(0, i) for i in (0, 1)]
    _within(*sizes)
    return pair(lambda i: value.reshape(()).expand(sizes[i]).clone())


@operation("Range")
def _range(call: Call) -> Any:
    first, last, step = (call.constant(k) for k in range(3))
    count = max(math.ceil((last.item() - first.item()) / step.item()), 0)
    _within([count])
    found = (first + step * torch.arange(count)).to(first.dtype)
    return Constant((found, found), call.name)


def _within(*sizes: list[int]) -> None:
    if any(math.prod(size) > LARGEST or min(size, default=0) < 0 for size in sizes):
        raise Unread(f"its result would be of the size {sizes[0]}")


@operation("Shape")
def _shape(call: Call) -> Any:
    x, first, last = call[0], call.attribute("start", 0), call.attribute("end")
    return pair(lambda i: torch.tensor(x.shape(i)[first:last], dtype=torch.int64))


@operation("Size")
def _size(call: Call) -> Any:
    x = call[0]
    return pair(lambda i: torch.tensor(math.prod(x.shape(i))))


@operation("Reshape")
def _reshape(call: Call) -> Any:
    keep = not call.attribute("allowzero", 0)
    return reshaped(call, call[0], [call.integers(1, i) for i in (0, 1)], keep_at_zero=keep)


@operation("Flatten")
def _flatten(call: Call) -> Any:
    x, axis = call[0], call.attribute("axis", 1)
    sizes = [x.shape(i) for i in (0, 1)]
    return reshaped(call, x, [[math.prod(size[:axis]), math.prod(size[axis:])] for size in sizes])


def reshaped(call: Call, x: Read, wanted: list[list[int]], *, keep_at_zero: bool = True) -> Any:
    """The values in another shape, with the batch where it has to be for every image to keep its own.

    Args:
        wanted: the shape as ONNX says it, for both batches.
        keep_at_zero: 0 means the dimension of the input.
    """
    if isinstance(x, Constant):
        found = [_resolved(wanted[i], x.shape(i), keep_at_zero) for i in (0, 1)]
        return pair(lambda i: x.of[i].reshape(found[i]), x)
    if len(x.batch_axes) != 1:
        raise Unread("its values are not those of one image after the other")
    place: tuple[list[int], int, int] | None = None
    if call.building.fixed is None or wanted[0] != wanted[1]:
        place = _for_any_batch(x, wanted, keep_at_zero)
    if place is None and wanted[0] == wanted[1]:
        place = _for_fixed_batch(x, wanted[0], call.building.fixed or 1, keep_at_zero)
    if place is None:
        raise Unread(f"it makes {wanted[0]} of {list(x.shape())}, which mixes the images of a batch")
    target, axis, outer = place
    target[axis] = -1
    return replace(call.call(torch.reshape, x, tuple(target)), outer=outer)


def _before(x: Value) -> int:
    """How many values of an image lie before its batch dimension, in memory."""
    return math.prod(x.shape()[: x.batch_axes[0]]) * x.outer


def _for_any_batch(x: Value, wanted: list[list[int]], keep: bool) -> tuple[list[int], int, int] | None:
    """The shape if it holds for batches of every size, where the batch is in it, and behind how much of its
    own dimension."""
    try:
        one, other = (_resolved(wanted[i], x.shape(i), keep) for i in (0, 1))
    except Unread:
        return None
    places = [k for k, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
    if len(places) != 1:
        return None
    (k,) = places
    outer, rest = divmod(_before(x), math.prod(one[:k]))
    return None if rest or outer < 1 or (other[k] - one[k]) % outer else (one, k, outer)


def _for_fixed_batch(
    x: Value, wanted: list[int], fixed: int, keep: bool
) -> tuple[list[int], int, int] | None:
    """The same if it was written for a batch of one size. Of several places for the batch, a dimension of its
    own is meant; else, where dimensions are merged, the one behind which they hold the same values."""
    axis = x.batch_axes[0]
    one, other = x.shape(0)[axis], x.shape(1)[axis]
    there = (other - one) // (BATCHES[1] - BATCHES[0]) * fixed
    shape = (*x.shape()[:axis], there, *x.shape()[axis + 1 :])
    resolved, behind = _resolved(wanted, shape, keep), math.prod(x.shape()[axis + 1 :])
    found = []
    for k, length in enumerate(resolved):
        outer, rest = divmod(_before(x), math.prod(resolved[:k]))
        if not rest and outer > 0 and length % (fixed * outer) == 0:
            merged = len(resolved) < x.rank and math.prod(resolved[k + 1 :]) != behind
            found.append(((outer, length) != (1, fixed), merged, outer, k))
    if not found:
        return None
    _, _, outer, k = min(found)
    return resolved, k, outer


def _resolved(wanted: list[int], shape: tuple[int, ...], keep: bool) -> list[int]:
    """A shape with 0 and -1 worked out."""
    found = [
        shape[k] if length == 0 and keep and k < len(shape) else length for k, length in enumerate(wanted)
    ]
    known = math.prod(length for length in found if length != -1)
    if found.count(-1) == 1 and known:
        found[found.index(-1)] = math.prod(shape) // known
    if min(found, default=0) < 0 or math.prod(found) != math.prod(shape):
        raise Unread(f"it cannot make {wanted} of {list(shape)}")
    return found


@operation("Transpose")
def _transpose(call: Call) -> Any:
    x = call[0]
    order = tuple(call.attribute("perm") or range(x.rank)[::-1])
    return turned(call, x, order)


def turned(call: Call, x: Read, order: tuple[int, ...]) -> Any:
    """The dimensions in another order; two permutations in a row are one, or none."""
    if isinstance(x, Constant):
        return call.call(torch.permute, x, order)
    if sorted(order) != list(range(x.rank)):
        raise Unread(f"its order {list(order)} is none of {x.rank} dimensions")
    base, first = x.turned or (x, tuple(range(x.rank)))
    whole = tuple(first[k] for k in order)
    if whole == tuple(range(x.rank)):
        return base
    found = call.call(torch.permute, base, whole)
    return Value(found.node, found.like, (base, whole))


@operation("Squeeze")
def _squeeze(call: Call) -> Any:
    x, axes = call[0], call.axes(13)
    if axes is None:
        axes = [k for k in range(x.rank) if k not in x.batch_axes]  # longer ones stay
        if call.building.fixed == 1 and x.batch_axes:
            raise Unread("it names no axes, and would take away that of a single image")
    return call.call(torch.squeeze, x, tuple(own_axes(x, axes)))


@operation("Unsqueeze")
def _unsqueeze(call: Call) -> Any:
    x, axes = call[0], call.axes(13) or []
    for axis in sorted(axis % (x.rank + len(axes)) for axis in axes):
        x = call.call(torch.unsqueeze, x, axis)
    return x


@operation("Concat")
def _concat(call: Call) -> Any:
    parts = [call[k] for k in range(len(call.inputs))]
    values = [one for one in parts if isinstance(one, Value)]
    axis = call.attribute("axis")
    if not values:
        return call.call(torch.cat, parts, axis)
    for one in values:
        own_axes(one, [axis])
    fixed = call.building.fixed or 1
    place = values[0].batch_axes
    ready = [
        _for_all(one, place[0], fixed) if isinstance(one, Constant) and place == [0] and one.rank else one
        for one in parts
    ]
    return call.call(torch.cat, ready, axis)


def _for_all(constant: Constant, axis: int, fixed: int) -> Constant:
    """A constant that every image has, such as a class token, once for each image."""
    first, second = constant.of
    if second is not first or first.shape[axis] != fixed or not bool((first == first[:1]).all()):
        return constant
    one, other = (first[:1].expand(count, *first.shape[1:]) for count in BATCHES)
    return Constant((one, other), constant.name)


@operation("Split")
def _split(call: Call) -> Any:
    x, axis, count = call[0], call.attribute("axis", 0), len(call.node.output)
    (axis,) = own_axes(x, [axis])
    length = x.shape()[axis]
    given = call.attribute("split") if call.opset < 13 else call.get(1) and call.integers(1)
    part = math.ceil(length / count)
    sizes = list(given) if given else [min(part, length - part * k) for k in range(count)]
    if len(sizes) != count or sum(sizes) != length or min(sizes) < 0:
        raise Unread(f"it cannot split {length} into {sizes}")
    if len(set(sizes)) == 1:
        return list(call.call(torch.chunk, x, count, axis))
    return list(call.call(torch.split, x, tuple(sizes), axis))


@operation("Slice")
def _slice(call: Call) -> Any:
    x = call[0]
    if call.opset < 10:
        starts, ends = call.attribute("starts"), call.attribute("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = call.integers(1), call.integers(2)
        axes, steps = (call.integers(k) if call.get(k) is not None else None for k in (3, 4))
    axes = range(len(starts)) if axes is None else axes
    for axis, first, last, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        x = _part(call, x, axis, slice(first, last, step))
    return x


def _part(call: Call, x: Read, axis: int, part: slice) -> Any:
    axis = axis % x.rank
    length = x.shape()[axis]
    kept = range(length)[part]
    if axis in x.batch_axes and part.step == 1 and part.start == 0 and part.stop >= 2**31 - 1:
        return x
    (axis,) = own_axes(x, [axis])
    if kept == range(length):
        return x
    count = len(kept)
    if kept.step == 1 and count and not (length % count or kept.start % count):  # as the bounds read it
        return call.call(torch.chunk, x, length // count, axis)[kept.start // count]
    if kept.step == 1:
        return call.call(torch.narrow, x, axis, kept.start, len(kept))
    return call.call(
        torch.index_select, x, axis, Constant((index := torch.tensor(list(kept)), index), "index")
    )


@operation("Gather")
def _gather(call: Call) -> Any:
    x, index = call[0], call.constant(1)
    (axis,) = own_axes(x, [call.attribute("axis", 0)])
    length = x.shape()[axis]
    index = torch.where(index < 0, index + length, index).long()
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < length:
        raise Unread(f"its indices are not below {length}")
    if index.dim() == 0:
        return call.call(torch.select, x, axis, int(index))
    flat = Constant((places := index.flatten(), places), "index")
    found = call.call(torch.index_select, x, axis, flat)
    if index.dim() == 1:
        return found
    return call.call(torch.unflatten, found, axis, tuple(index.shape))


@operation("Expand")
def _expand(call: Call) -> Any:
    x = call[0]
    wanted = [torch.broadcast_shapes(x.shape(i), call.integers(1, i)) for i in (0, 1)]
    _within(*map(list, wanted))
    if isinstance(x, Constant):
        return pair(lambda i: x.of[i].expand(wanted[i]), x)
    rank = len(wanted[0])
    batch = {axis + rank - x.rank for axis in x.batch_axes}
    if any(wanted[0][axis] != wanted[1][axis] and axis not in batch for axis in range(rank)):
        raise Unread("it repeats an image as often as there are images")
    return call.call(
        Tensor.expand, x, tuple(-1 if axis in batch else wanted[0][axis] for axis in range(rank))
    )


@operation("Tile")
def _tile(call: Call) -> Any:
    x, times = call[0], call.integers(1)
    own_axes(x, [axis for axis, count in enumerate(times) if count != 1])
    return call.call(torch.tile, x, tuple(times))


@operation("Pad")
def _pad(call: Call) -> Any:
    x, mode = call[0], call.attribute("mode", "constant")
    if call.opset < 11:
        pads, value = call.attribute("pads"), call.attribute("value", 0.0)
    else:
        given = call.optional(2)
        pads, value = call.integers(1), 0.0 if given is None else given.item()
    axes = call.integers(3) if call.get(3) is not None else range(len(pads) // 2)
    edges = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    return padded(call, x, {axis % x.rank: edge for axis, edge in edges.items() if any(edge)}, mode, value)


def padded(call: Call, x: Read, edges: dict[int, Any], mode: str = "constant", value: float = 0.0) -> Any:
    """Values added before and behind; negative numbers take some away."""
    if not edges:
        return x
    own_axes(x, list(edges))
    known = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in known:
        raise Unread(f"it pads by {mode!r}")
    if known[mode] == "constant":
        first = min(edges)
        flat = [length for axis in range(x.rank - 1, first - 1, -1) for length in edges.get(axis, (0, 0))]
        return call.call(functional.pad, x, flat, "constant", value)
    flat = [length for axis in range(x.rank - 1, 1, -1) for length in edges.get(axis, (0, 0))]
    if min(edges) < 2:
        raise Unread(f"it pads channels by {mode!r}")
    return call.call(functional.pad, x, flat, known[mode])
