"""Reads the content of an ONNX file into a module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from advkit.core.errors import ConfigError, ModelError, UserError, by_size
from advkit.models.card import Shape
from advkit.models.onnx_graph import arrange, elementwise, layers  # noqa: F401 (their decorators)
from advkit.models.onnx_graph.building import Building, Constant, Read, Unread, Value
from advkit.models.onnx_graph.content import Content, library
from advkit.models.onnx_graph.operation import OPERATIONS, Call


@dataclass(frozen=True)
class Network:
    """What has been read."""

    module: fx.GraphModule
    """Takes images (N, *shape)."""
    shape: Shape
    classes: int | None
    layout: str
    """How the file wants its images, where that is not (N, C, H, W); else empty."""
    fixed: int | None
    """How many images the file was exported for; None for any number."""


def read(content: Content, shape: Shape | None) -> Network:
    """The network of an ONNX file.

    Args:
        shape: (channels, height, width) of the images, where the file leaves it open.

    Raises:
        ModelError: it has something that cannot be read.
        ConfigError: the shape of the images is not known.
    """
    shape, layout = _images(content, shape)
    fixed = content.dims[0]
    building = Building(fixed)
    known: dict[str, Read] = {name: Constant((one, one), name) for name, one in content.tensors.items()}
    used = frozenset([*content.outputs, *(name for node in content.nodes for name in node.input)])
    try:
        known[content.input] = _arranged(building, content, shape, layout)
    except Exception as error:
        raise ModelError(
            f"{content.named} cannot take images of {by_size(shape)} ({_line(error)})"
        ) from error
    for node in content.nodes:
        inputs = tuple(known[name] if name else None for name in node.input)
        found = _node(content, Call(building, node, inputs, content.opset, used))
        known.update(zip(node.output, found if isinstance(found, list) else [found], strict=False))
    outputs = {name: known[name] for name in content.outputs}
    for name, one in outputs.items():
        if not isinstance(one, Value):
            raise ModelError(f"{content.named}: its output {name!r} does not depend on the images")
        if one.batch_axes != [0]:
            raise ModelError(
                f"{content.named}: its output {name!r} has the shape {list(one.shape())} for 2 images, which "
                "is no row for each; export the network with a batch dimension"
            )
    (*others, last) = outputs.values()
    module = building.module(outputs if others else last)
    classes = last.shape()[1] if not others and last.rank > 1 and last.shape()[1] > 1 else None
    return Network(module, shape, classes, layout, fixed)


def check_batches(network: Network, named: str) -> None:
    """Raises a `ModelError` if batches of the size in the file give something else together than alone."""
    if (count := network.fixed) is None:
        return
    images = torch.linspace(0, 1, 2 * count * math.prod(network.shape)).view(2 * count, *network.shape)
    with torch.no_grad():
        found = [network.module(part) for part in (*images.split(count), images)]
    parts = [tuple(one.values()) if isinstance(one, dict) else (one,) for one in found]
    for one, other, both in zip(*parts, strict=True):
        apart = torch.cat([one, other]).double()
        if not (both - apart).abs().max() <= 1e-3 * apart.abs().max():
            raise ModelError(
                f"{named} was exported for {count} image(s) at once, and mixes those of a larger batch; "
                "export it with a dynamic batch dimension"
            )


def _node(content: Content, call: Call) -> Any:
    kind, node = call.node.op_type, call.node
    where = f"{content.named}: the operation {kind} (node {node.name or node.output[0]!r})"
    if node.domain not in ("", "ai.onnx") or kind not in OPERATIONS:
        whose = f" of {node.domain}" if node.domain not in ("", "ai.onnx") else ""
        raise ModelError(
            f"{where} cannot be read: an operation{whose} that is not supported; "
            "export the network from plain layers"
        )
    try:
        _check(call)
        return OPERATIONS[kind](call)
    except UserError:
        raise
    except Unread as reason:
        raise ModelError(
            f"{where} cannot be read: {reason}; export the network from plain layers"
        ) from reason
    except Exception as error:  # PyTorch complains of shapes and types in any way
        raise ModelError(
            f"{where} cannot be read: its inputs or attributes do not fit ({_line(error)}); export it again"
        ) from error


def _check(call: Call) -> None:
    """Raises `Unread` for attributes and inputs that the operation has not in this opset."""
    schema = library().defs.get_schema(call.node.op_type, call.opset)
    for one in call.node.attribute:
        known = schema.attributes.get(one.name)
        if known is None or int(known.type.value) != one.type:
            raise Unread(f"in opset {call.opset} it has no such attribute as its {one.name!r}")
    if not schema.min_input <= len(call.inputs) <= schema.max_input:
        raise Unread(f"it has {len(call.inputs)} inputs")


def _images(content: Content, said: Shape | None) -> tuple[Shape, str]:
    """The shape of the images, and what the file wants in its place."""
    named, dims = content.named, content.dims[1:]
    if not dims or len(dims) > 3:
        raise ModelError(
            f"{named} takes an input of shape {_dims(content)}, which is no batch of images; export the "
            "network with inputs (N, channels, height, width), or (N, pixels)"
        )
    if len(dims) == 3 and None not in dims and 1 not in (dims[1], dims[2]):
        channels, height, width = (int(length or 0) for length in dims)
        if width in (1, 3) and channels not in (1, 3):
            return (width, channels, height), "channels last"
        return (channels, height, width), ""
    if len(dims) == 2 and None not in dims and 1 not in dims:
        return (1, int(dims[0] or 0), int(dims[1] or 0)), "without channels"
    if said is None:
        raise ConfigError(
            f"{named} takes an input of shape {_dims(content)}, which leaves the images' shape open; give "
            "their channels, height and width, for example --shape 1,28,28 (shape=(1, 28, 28))"
        )
    if len(dims) == 3 and all(length in (None, own) for length, own in zip(dims, said, strict=True)):
        return said, ""
    last = (*said[1:], said[0])
    if len(dims) == 3 and all(length in (None, own) for length, own in zip(dims, last, strict=True)):
        return said, "channels last"
    if None in dims or math.prod(length for length in dims if length is not None) != math.prod(said):
        raise ConfigError(
            f"{named} takes an input of shape {_dims(content)}, and images of {by_size(said)} have "
            f"{math.prod(said)} values; give the shape it was trained on with --shape"
        )
    return said, "flat"


def _arranged(building: Building, content: Content, shape: Shape, layout: str) -> Any:
    """The images as the file wants them."""
    x = building.input(shape)
    call = Call(building, None, (x,), content.opset, frozenset())
    if layout == "channels last":
        return arrange.turned(call, x, (0, 2, 3, 1))
    if not layout:
        return x
    dims = [int(length or 0) for length in content.dims[1:]]
    return arrange.reshaped(call, x, [[count, *dims] for count in (2, 3)])


def _dims(content: Content) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in content.dims)})"


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
