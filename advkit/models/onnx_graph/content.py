"""What is in an ONNX file, checked before anything is allocated or computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advkit.core.errors import ConfigError, ModelError, by_size

OPSETS = (7, 22)
"""Oldest and newest version of the standard operations."""
_INSTALL = "reading ONNX files takes the package onnx, which is not installed: pip install 'advkit[onnx]'"


@dataclass(frozen=True)
class Content:
    """A graph of one input, whose tensors are read."""

    named: str
    """For messages."""
    opset: int
    nodes: tuple[Any, ...]
    """``NodeProto``, those alone that the outputs depend on."""
    tensors: dict[str, Tensor]
    """Floating-point ones in float32."""
    converted: tuple[str, ...]
    """Other floating-point types that there were."""
    input: str
    dims: tuple[int | None, ...]
    """Of the input; None where a dimension is open."""
    outputs: tuple[str, ...]


def library() -> Any:
    """The package onnx.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(_INSTALL) from error
    return onnx


def parse(data: bytes, named: str) -> Any:
    """The ``ModelProto`` in a file's bytes.

    Raises:
        ModelError: it is none.
    """
    onnx = library()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf has an error class in each of its implementations
        raise ModelError(f"{named} is no ONNX file, or is cut short or damaged; take another copy") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{named} is no ONNX model, or an empty one; take another copy")
    return model


def content(model: Any, named: str, folder: Path | None) -> Content:
    """The graph of ``model``.

    Args:
        model: a ``ModelProto``.
        folder: where files that hold its tensors are; None for nowhere.

    Raises:
        ModelError: it is inconsistent, or not what a classifier is exported as.
    """
    onnx = library()
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ModelError(
            f"{named} has operations of opset {opset}, and {OPSETS[0]} to {OPSETS[1]} can be read; export "
            f"the network again with opset_version={OPSETS[1]}"
        )
    if model.functions:
        try:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
        except Exception as error:  # of damaged ones, in any way
            raise ModelError(
                f"{named} has functions of its own that cannot be put into its graph ({_line(error)}); "
                "export the network without them"
            ) from error
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelError(f"{named} has sparse weights, which cannot be read; export them dense")
    needed = _needed(graph, named)
    used = {name for node in needed for name in node.input} | {value.name for value in graph.output}
    tensors, kinds = {}, set()
    for tensor in graph.initializer:
        if tensor.name in used:
            tensors[tensor.name] = read = tensor_of(tensor, named, folder)
            if read.is_floating_point():
                kinds.add(onnx.TensorProto.DataType.Name(tensor.data_type).lower())
    initialised = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in initialised and value.name in used]
    if len(given) != 1:
        names = ", ".join(repr(value.name) for value in given) or "none"
        raise ModelError(
            f"{named} takes {len(given)} inputs ({names}), and a classifier takes one, the images; export "
            "the network with the others as constants"
        )
    name, dims = _input(onnx, given[0], named)
    return Content(
        named,
        opset,
        tuple(needed),
        tensors,
        tuple(sorted(kinds - {"float"})),
        name,
        dims,
        tuple(value.name for value in graph.output),
    )


def _needed(graph: Any, named: str) -> list[Any]:
    """The nodes that the outputs depend on, in their order.

    Raises:
        ModelError: a value that nothing before it computes, as in a cycle, or that two nodes compute.
    """
    known = {value.name for value in [*graph.input, *graph.initializer]} | {""}
    for node in graph.node:
        where = f"{named}: node {node.name or node.op_type!r} ({node.op_type})"
        if absent := next((name for name in node.input if name not in known), None):
            raise ModelError(
                f"{where} uses {absent!r}, which nothing before it computes (it is missing, or in a cycle); "
                "the file is damaged: export it again"
            )
        for name in node.output:
            if name and name in known:
                raise ModelError(f"{where} computes {name!r}, which is there already; export the file again")
            known.add(name)
    wanted = {value.name for value in graph.output}
    if absent := next((name for name in wanted if name not in known), None):
        raise ModelError(f"{named} computes nothing called {absent!r}, its output; export the file again")
    found = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(name for name in node.input if name)
    return found[::-1]


def _input(onnx: Any, value: Any, named: str) -> tuple[str, tuple[int | None, ...]]:
    kind = value.type.tensor_type
    floats = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in floats:
        raise ModelError(
            f"{named} takes something else than floating-point images as its input {value.name!r}; export "
            "the network with a float32 input"
        )
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return value.name, dims


def tensor_of(tensor: Any, named: str, folder: Path | None = None) -> Tensor:
    """The tensor of a ``TensorProto``; floating-point ones in float32, unsigned integers in int64.

    Raises:
        ModelError: its data are absent, of another size, or of a type that no classifier computes with.
    """
    onnx = library()
    where = f"{named}: tensor {tensor.name!r} of shape {by_size(tensor.dims) or '()'}"
    kinds = onnx.TensorProto
    if tensor.data_type not in {getattr(kinds, kind) for kind in _TYPES}:
        raise ModelError(f"{where} is of a type that no classifier computes with; export it in float32")
    if tensor.data_location == kinds.EXTERNAL:
        if folder is None and [one.value for one in tensor.external_data] == [""]:  # as `bare` leaves it
            return torch.full(tuple(tensor.dims), torch.nan)
        tensor = _with_data(tensor, where, folder)
    try:
        array = onnx.numpy_helper.to_array(tensor)  # of a size that is not the data's, it is an error
    except Exception as error:  # of damaged ones, in any way
        raise ModelError(f"{where} is damaged ({_line(error)}); take another copy") from error
    if tensor.data_type in (kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16):
        array = array.astype(np.float32)
    elif array.dtype.kind == "u":
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array))


_TYPES = (
    *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL"),
    *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
)


def _with_data(tensor: Any, where: str, folder: Path | None) -> Any:
    """A copy that holds the data which are in a file beside the graph's; never one outside its folder."""
    onnx = library()
    said = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise ModelError(f"{where} has its data in another file; name the .onnx file beside it")
    try:
        path = (folder / said["location"]).resolve()
        inside = path.is_relative_to(folder.resolve())
        first, there = int(said.get("offset", 0)), path.stat().st_size if inside and path.is_file() else None
        wanted = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        length = int(said.get("length", wanted))
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(f"{where} names its data in a way that cannot be read; take another copy") from error
    if not inside:
        raise ModelError(
            f"{where} has its data outside the folder of the model ({said['location']}), where nothing is "
            "read; put the file beside the model, and export it with a name relative to it"
        )
    if there is None:
        raise ModelError(f"{where} has its data in {path.name}, which is not there; put it beside the model")
    if min(tensor.dims, default=0) < 0 or length != wanted or first < 0 or first + length > there:
        raise ModelError(f"{where} needs {wanted} bytes, which {path.name} has not; take another copy")
    with path.open("rb") as file:
        file.seek(first)
        raw = file.read(length)
    held = onnx.TensorProto()
    held.data_type, held.raw_data = tensor.data_type, raw
    held.dims.extend(tensor.dims)
    return held


def bare(model: Any) -> bytes:
    """The graph without its weights (which become NaN), from which the network can be made again."""
    onnx = library()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for part in (copy, copy.graph):
        for name in ("doc_string", "producer_name", "producer_version", "metadata_props", "training_info"):
            if name in part.DESCRIPTOR.fields_by_name:
                part.ClearField(name)
    copy.graph.ClearField("value_info")
    held = [*copy.graph.initializer, *(one.t for node in copy.graph.node for one in node.attribute)]
    for tensor in held:
        floating = tensor.data_type in {getattr(onnx.TensorProto, kind) for kind in _TYPES[:4]}
        if floating and math.prod(tensor.dims) > 1:
            name, dims = tensor.name, tuple(tensor.dims)
            tensor.Clear()
            tensor.name, tensor.data_type = name, onnx.TensorProto.FLOAT
            tensor.dims.extend(dims)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="")
    return bytes(copy.SerializeToString(deterministic=True))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
