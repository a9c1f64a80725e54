"""ONNX graphs for tests: built node by node, each of which is evaluated at once by the reference of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray


def numpy_value(name: str, value: Array) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


class Graph:
    """A graph with the values of its nodes.

    Args:
        images: example input, (N, ...).
        opset: version of the operations.
        fixed: the batch is written into the graph, else it is open.
    """

    def __init__(self, images: Array, opset: int = 17, *, fixed: bool = False) -> None:
        self.opset, self.fixed = opset, fixed
        self.values: dict[str, Array] = {"images": images.astype(np.float32)}
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.random = np.random.default_rng(0)

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"w{len(self.constants)}"
        self.constants[name] = self.values[name] = np.asarray(value, kind)
        return name

    def weight(self, *shape: int) -> str:
        size = math.prod(shape[1:]) or 1
        return self.constant(self.random.normal(0, 1 / math.sqrt(size), shape))

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{kind.lower()}{len(self.nodes)}_{k}" for k in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, **attributes)
        given = {name: self.values[name] for name in inputs if name}
        graph = helper.make_graph(
            [node],
            "node",
            [numpy_value(name, value) for name, value in given.items()],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names],
        )
        run = ReferenceEvaluator(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        )
        self.values.update(zip(names, run.run(None, given), strict=True))
        self.nodes.append(node)
        return names if outputs > 1 else names[0]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def model(self, *outputs: str) -> Any:
        def info(name: str, rank: int | None = None) -> Any:
            dims: list[Any] = list(self.shape(name))
            if not self.fixed:
                dims[0] = "N"
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

        graph = helper.make_graph(
            self.nodes,
            "graph",
            [info("images")],
            [info(name) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def save(self, path: Path, *outputs: str) -> Path:
        onnx.save(self.model(*outputs), path)
        return path


class Drawn:
    """Random graphs: each step is an operation that fits what there is.

    Args:
        data: what hypothesis draws from.
        strict: leave out what the reference of ONNX computes wrongly.
    """

    def __init__(self, data: st.DataObject, *, strict: bool) -> None:
        self.data, self.strict = data, strict
        self.fixed = self.bit()
        size = (self.upto(3), self.upto(9, 4), self.upto(9, 4))
        count = self.one([1, 1, 2]) if self.fixed else 3
        random = np.random.default_rng(self.upto(99))
        self.g = Graph(
            random.random((count, *size)), self.one([7, 9, 11, 12, 13, 17, 18, 20, 22]), fixed=self.fixed
        )
        self.opset = self.g.opset

    def one(self, choices: Any) -> Any:
        return self.data.draw(st.sampled_from(list(choices)))

    def bit(self) -> bool:
        return bool(self.one([False, True]))

    def upto(self, most: int, least: int = 1) -> int:
        return int(self.data.draw(st.integers(least, most)))

    def graph(self) -> tuple[Graph, str]:
        x = "images"
        for _ in range(self.upto(5, 0)):
            steps = [step for step, fits in STEPS.items() if fits(len(self.g.shape(x)))]
            x = self.one(steps)(self, x)
        while len(self.g.shape(x)) != 2:
            x = flattened(self, x)
        return self.g, dense(self, x)

    def ints(self, *values: int) -> str:
        return self.g.constant(values, np.int64)

    def axes(self, since: int, values: list[int]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Axes as an input or as an attribute."""
        return ((self.ints(*values),), {}) if self.opset >= since else ((), {"axes": values})


def windows(d: Drawn, x: str, kernel: list[int], *, dilated: bool = True) -> dict[str, Any]:
    size = d.g.shape(x)[2:]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": [d.upto(3), d.upto(3)]}
    if dilated and d.bit():
        found["dilations"] = [d.upto(2) if (k - 1) * 2 < n else 1 for k, n in zip(kernel, size, strict=True)]
    auto = d.one(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if "SAME" in auto:  # of other strides and gaps the reference of ONNX may make something empty
        found = {
            "kernel_shape": kernel,
            "strides": [min(s, k) for s, k in zip(found["strides"], kernel, strict=True)],
        }
    if auto != "NOTSET":
        return found | {"auto_pad": auto}
    return found | {"pads": [d.upto(k - 1, 0) for k in (*kernel, *kernel)]}


def conv(d: Drawn, x: str) -> str:
    channels, size = d.g.shape(x)[1], d.g.shape(x)[2:]
    groups = d.one([k for k in range(1, channels + 1) if channels % k == 0])
    kernel = [d.upto(min(3, n)) for n in size]
    weight = d.g.weight(groups * d.upto(2), channels // groups, *kernel)
    bias = (d.g.weight(d.g.shape(weight)[0]),) if d.bit() else ()
    return str(d.g.add("Conv", x, weight, *bias, group=groups, **windows(d, x, kernel)))


def max_pool(d: Drawn, x: str) -> str:
    kernel = [d.upto(min(3, n)) for n in d.g.shape(x)[2:]]
    more = windows(d, x, kernel, dilated=False)  # whose pads the reference of ONNX takes in another order
    if more.get("auto_pad") == "SAME_LOWER":  # of which, as of ceil_mode, the reference of ONNX makes
        more["auto_pad"] = "VALID"  # another shape
    return str(d.g.add("MaxPool", x, **more))


def average_pool(d: Drawn, x: str) -> str:
    kernel = [d.upto(min(3, n)) for n in d.g.shape(x)[2:]]
    more = windows(d, x, kernel, dilated=False) | {"count_include_pad": int(d.bit())}
    return str(d.g.add("AveragePool", x, **more))


def global_pool(d: Drawn, x: str) -> str:
    return str(d.g.add(d.one(["GlobalAveragePool", "GlobalMaxPool"]), x))


def batch_norm(d: Drawn, x: str) -> str:
    if d.opset < (14 if d.strict else 9):  # the reference of ONNX is then wrong, or fails
        return x
    count = d.g.shape(x)[1]
    variance = d.g.constant(d.g.random.uniform(0.5, 2, count))
    more = {"epsilon": d.one([1e-5, 0.1])}
    return str(d.g.add("BatchNormalization", x, *(d.g.weight(count) for _ in range(3)), variance, **more))


def activation(d: Drawn, x: str) -> str:
    found: dict[str, dict[str, Any]] = {
        **{
            kind: {} for kind in ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Softplus", "Identity", "Softsign")
        },
        "LeakyRelu": {"alpha": d.one([0.01, 0.3])},
        "Elu": {"alpha": d.one([1.0, 0.7])},
        "Selu": d.one([{}, {"alpha": 1.5, "gamma": 0.9}]),
        "HardSigmoid": d.one([{}, {"alpha": 1 / 6}]),
        "ThresholdedRelu": {"alpha": 0.4} if d.opset >= 10 else {},
    }
    found |= {"Erf": {}} if d.opset >= 9 else {}
    found |= {"HardSwish": {}} if d.opset >= 14 else {}
    found |= {"Mish": {}} if d.opset >= 18 else {}
    found |= {"Gelu": d.one([{}, {"approximate": "tanh"}])} if d.opset >= 20 else {}
    kind = d.one([k for k in found if k != "ThresholdedRelu" or d.opset >= 10])
    return str(d.g.add(kind, x, **found[kind]))


def clip(d: Drawn, x: str) -> str:
    low, high = d.one([(0.0, 6.0), (0.0, None), (-0.5, 0.5), (None, 0.3)])
    if d.opset < 11:
        return str(d.g.add("Clip", x, **{k: v for k, v in (("min", low), ("max", high)) if v is not None}))
    limits = ["" if v is None else d.g.constant(v) for v in (low, high)]
    return str(d.g.add("Clip", x, *(limits if high is not None else limits[:1])))


def prelu(d: Drawn, x: str) -> str:
    shape = d.one([(1,), (d.g.shape(x)[1], *(1 for _ in d.g.shape(x)[2:]))])
    return str(d.g.add("PRelu", x, d.g.constant(d.g.random.random(shape))))


def arithmetic(d: Drawn, x: str) -> str:
    shape = d.g.shape(x)
    sizes = [(), (1,), shape[-1:], (1, *shape[1:]), (1, shape[1], *(1 for _ in shape[2:])), shape[1:]]
    other = d.g.constant(d.g.random.uniform(0.5, 2, d.one(sizes)))
    pair = (x, other) if d.bit() else (other, x)
    kind = d.one(["Add", "Sub", "Mul"] if pair[0] == other else ["Add", "Sub", "Mul", "Div"])
    return str(d.g.add(kind, *pair))


def two_branches(d: Drawn, x: str) -> str:
    pair = x, activation(d, x)
    kind = d.one(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean", "Concat"])
    if kind in ("Max", "Min") and d.opset < 8:
        kind = "Add"
    rank = len(d.g.shape(x))
    more = {"axis": d.one([*range(1, rank), *range(1 - rank, 0)]) if d.opset >= 11 else 1}
    return str(d.g.add(kind, *pair, **(more if kind == "Concat" else {})))


def parts(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    axis = d.upto(rank - 1)
    length = d.g.shape(x)[axis]
    first = d.upto(length, 0)
    sizes = [first, length - first]
    if d.bit():
        sizes = [length]
    if d.opset >= 18 and len(sizes) == 1:
        found = d.g.add("Split", x, d.ints(*sizes), outputs=1, axis=axis)
        return str(found)
    if d.opset >= 13:
        found = d.g.add("Split", x, d.ints(*sizes), outputs=len(sizes), axis=axis)
    else:
        found = d.g.add("Split", x, outputs=len(sizes), axis=axis, split=sizes)
    found = [found] if isinstance(found, str) else found
    return str(d.g.add("Concat", *found[::-1], axis=axis))


def sliced(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    axis = d.upto(rank - 1)
    length = d.g.shape(x)[axis]
    first = d.upto(length - 1, 0)
    if d.opset < 10:
        return str(d.g.add("Slice", x, starts=[first], ends=[2**31 - 1], axes=[axis]))
    ends, step = d.one([(2**63 - 1, 1), (2**31 - 1, 2), (length, 1), (-(2**63), -1)])
    start = d.one([first, first - length])
    return str(d.g.add("Slice", x, *map(d.ints, (start, ends, d.one([axis, axis - rank]), step))))


def gathered(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    axis = d.upto(rank - 1)
    index = [d.upto(d.g.shape(x)[axis] - 1, 0) for _ in range(d.upto(3))]
    if d.opset >= 11:
        index = [k - d.one([0, d.g.shape(x)[axis]]) for k in index]
    shaped: Any = d.one([index, [index], index[0]]) if 2 < rank < 4 else index
    return str(d.g.add("Gather", x, d.g.constant(shaped, np.int64), axis=axis))


def pad(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    mode = d.one(["constant", "reflect", "edge"]) if rank == 4 and min(d.g.shape(x)[2:]) > 2 else "constant"
    edges = [0, *(d.upto(2, 0) if mode == "constant" or k > 1 else 0 for k in range(1, rank))]
    edges += [0, *(d.upto(2, 0) if mode == "constant" or k > 1 else 0 for k in range(1, rank))]
    if d.opset < 11:
        more = {"value": 0.5} if mode == "constant" else {}
        return str(d.g.add("Pad", x, pads=edges, mode=mode, **more))
    return str(d.g.add("Pad", x, d.ints(*edges), d.g.constant(0.5), mode=mode))


def transposed(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    order = d.data.draw(st.permutations(range(1, rank)))
    return str(d.g.add("Transpose", x, perm=[0, *order]))


def batch_inside(d: Drawn, x: str) -> str:
    """The batch for a while as another dimension, as sequence models have it."""
    rank = len(d.g.shape(x))
    order = [1, 0, *range(2, rank)]
    there = activation(d, d.g.add("Transpose", x, perm=order))
    return str(d.g.add("Transpose", there, perm=order))


def reduced(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    axes = d.one([[2, 3], [-1, -2], [1], [3]] if rank == 4 else [[1], [-1]])
    kind = d.one(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"])
    more, said = d.axes(13 if kind == "ReduceSum" else 18, axes)
    return str(d.g.add(kind, x, *more, keepdims=int(rank - len(axes) < 2 or d.bit()), **said))


def squeezed(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    axes = [d.upto(rank)] if d.opset < 13 or rank > 2 else [1, rank + 1]
    more, said = d.axes(13, axes)
    wide = activation(d, d.g.add("Unsqueeze", x, *more, **said))
    more, said = d.axes(13, axes)
    return str(d.g.add("Squeeze", wide, *more, **said))


def softmax(d: Drawn, x: str) -> str:
    rank = len(d.g.shape(x))
    axis = rank - 1 if d.opset < 13 and d.strict else d.upto(rank - 1)
    return str(d.g.add(d.one(["Softmax", "LogSoftmax"]), x, axis=axis))


def dropout(d: Drawn, x: str) -> str:
    if d.opset >= 12 and d.bit():
        return str(d.g.add("Dropout", x, d.g.constant(0.4)))
    return str(d.g.add("Dropout", x, **({"ratio": 0.4} if d.opset < 12 else {})))


def cast(d: Drawn, x: str) -> str:
    return str(d.g.add("Cast", x, to=TensorProto.FLOAT))


def flattened(d: Drawn, x: str) -> str:
    """Every way that exporters write it."""
    count, *rest = d.g.shape(x)
    total = math.prod(rest)
    way = d.upto(5, 0)
    if way == 0:
        return str(d.g.add("Flatten", x, axis=1))
    if way == 1:
        return str(d.g.add("Reshape", x, d.ints(0, -1)))
    if way == 2:
        return str(d.g.add("Reshape", x, d.ints(-1, total)))
    if way == 3 and d.fixed:
        return str(d.g.add("Reshape", x, d.ints(count, d.one([-1, total]))))
    if way == 4:
        shape = d.g.add("Shape", x)
        batch = d.g.add("Gather", shape, d.g.constant(0, np.int64), axis=0)
        more, said = d.axes(13, [0])
        target = d.g.add("Concat", d.g.add("Unsqueeze", batch, *more, **said), d.ints(-1), axis=0)
        return str(d.g.add("Reshape", x, target))
    shape = d.g.add("Shape", x)
    if d.opset < 10:
        first = d.g.add("Slice", shape, starts=[0], ends=[1], axes=[0])
    else:
        first = d.g.add("Slice", shape, d.ints(0), d.ints(1), d.ints(0))
    return str(d.g.add("Reshape", x, d.g.add("Concat", first, d.ints(total), axis=0)))


def folded(d: Drawn, x: str) -> str:
    """A row of numbers as a plane or an image."""
    total = d.g.shape(x)[1]
    first = d.one([k for k in range(1, total + 1) if total % k == 0])
    count = d.g.shape(x)[0] if d.fixed else -1
    shape = d.one([(count, first, total // first), (count, first, total // first, 1), (0, -1, first)])
    return str(d.g.add("Reshape", x, d.ints(*shape)))


def dense(d: Drawn, x: str) -> str:
    inputs, outputs = d.g.shape(x)[1], d.upto(4, 2)
    if d.bit():
        bias = d.g.add("MatMul", x, d.g.weight(inputs, outputs))
        return str(d.g.add("Add", bias, d.g.weight(outputs)))
    turned = int(d.bit())
    weight = d.g.weight(*((outputs, inputs) if turned else (inputs, outputs)))
    shape = d.one([(outputs,), (1, outputs), (1,), ()] if d.opset >= 7 else [(outputs,)])
    more = {"alpha": d.one([1.0, 0.7]), "beta": d.one([1.0, 0.3]), "transB": turned}
    bias = (d.g.constant(d.g.random.normal(0, 1, shape)),) if d.bit() or d.opset < 11 else ()
    return str(d.g.add("Gemm", x, weight, *bias, **more))


def planes(d: Drawn, x: str) -> str:
    """Attention: products of two values."""
    length = d.g.shape(x)[2]
    key = d.g.add("MatMul", x, d.g.weight(length, 3))
    query = d.g.add("MatMul", x, d.g.weight(length, 3))
    scores = d.g.add("MatMul", query, d.g.add("Transpose", key, perm=[0, 2, 1]))
    scores = d.g.add("Div", scores, d.g.constant(math.sqrt(3)))
    return str(d.g.add("MatMul", d.g.add("Softmax", scores, axis=2), x))


def layer_norm(d: Drawn, x: str) -> str:
    if d.opset < 17:
        return x
    length = d.g.shape(x)[-1]
    return str(d.g.add("LayerNormalization", x, d.g.weight(length), d.g.weight(length), axis=-1, epsilon=0.1))


def shifted(d: Drawn, x: str) -> str:
    """A class token in front, repeated for each image."""
    count, _, length = d.g.shape(x)
    token = d.g.weight(1, 1, length)
    if not d.fixed or d.bit():
        first = d.g.add("Gather", d.g.add("Shape", x), d.ints(0), axis=0)
        token = d.g.add("Expand", token, d.g.add("Concat", first, d.ints(1, length), axis=0))
    elif count > 1:
        token = d.g.add("Tile", token, d.ints(count, 1, 1))
    return str(d.g.add("Concat", token, x, axis=1))


STEPS: Any = {
    **dict.fromkeys((conv, max_pool, average_pool, global_pool), lambda rank: rank == 4),
    **dict.fromkeys(
        (batch_norm, activation, clip, prelu, arithmetic, two_branches, dropout, cast), lambda rank: rank
    ),
    **dict.fromkeys((parts, sliced, gathered, pad, softmax, layer_norm), lambda rank: rank > 1),
    **dict.fromkeys((transposed, batch_inside, reduced), lambda rank: rank > 2),
    **dict.fromkeys((planes, shifted), lambda rank: rank == 3),
    **dict.fromkeys((folded, dense), lambda rank: rank == 2),
    **dict.fromkeys((flattened, squeezed), lambda rank: 2 <= rank <= 4),
}
"""Which operations there are, and on tensors of how many dimensions."""


def I(g: Graph, *values: int) -> str:  # noqa: E743 (short, in a table)
    return g.constant(values, np.int64)


def read_of(g: Graph, *names: str) -> str:
    """Values of any shape, added to the images each as one number of its place."""
    x = "images"
    for name in names:
        whole = g.add("Cast", g.add("Reshape", name, I(g, -1)), to=TensorProto.FLOAT)
        scale = g.constant(0.3 + 0.1 * np.arange(g.values[whole].size))
        x = g.add("Add", x, g.add("ReduceSum", g.add("Mul", whole, scale), I(g, 0), keepdims=0))
    return x


def attribute(g: Graph, **given: Any) -> str:
    return str(g.add("Constant", **given))


def reductions(g: Graph) -> str:
    """The axes became an input in opset 13 for sums, in 18 for all others."""
    found = []
    for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp"):
        if g.opset < (13 if kind == "ReduceSum" else 18):
            found.append(g.add(kind, "images", axes=[1, -1]))
        else:
            found.append(g.add(kind, "images", I(g, 1, -1)))
    return str(g.add("Sum", *found))


OPTIONS: dict[str, tuple[int, Callable[[Graph], str]]] = {
    "constants": (
        17,
        lambda g: read_of(
            g,
            attribute(g, value_float=0.7),
            attribute(g, value_floats=[0.7, 0.2]),
            g.add("Div", attribute(g, value_int=-7), attribute(g, value_ints=[2, 3])),
            g.add("ConstantOfShape", I(g, 2, 3)),
            g.add("ConstantOfShape", I(g, 2), value=numpy_helper.from_array(np.array([0.6], np.float32))),
            g.add("Range", *(g.constant(k, np.int64) for k in (1, 8, 3))),
            g.add("Range", *(g.constant(k) for k in (2.5, 0.9, -0.5))),
            g.add("Range", *(g.constant(k, np.int64) for k in (3, 3, 1))),
            g.add("Transpose", g.weight(3, 2)),
            g.add("Reshape", g.weight(3, 2), I(g, 0, -1, 2)),
            g.add("Mod", g.constant([-7, 7], np.int64), g.constant([3, -3], np.int64)),
            g.add("Mod", g.constant([-7.5, 7.5]), g.constant([3.0, -3.0]), fmod=1),
            g.add("Concat", g.weight(2, 2), g.weight(2, 3), axis=1),
            g.add("Relu", g.weight(4)),
        ),
    ),
    "softmax of several axes": (11, lambda g: g.add("Softmax", "images", axis=2)),
    "sizes": (
        17,
        lambda g: read_of(
            g,
            g.add("Shape", "images", start=1),
            g.add("Shape", "images", start=-2, end=-1),
            g.add("Size", g.weight(2, 3)),
            *g.add("Split", g.add("Shape", "images"), I(g, 1, 3), outputs=2)[1:],
        ),
    ),
    "flatten": (17, lambda g: g.add("Flatten", g.add("Flatten", "images"), axis=-1)),
    "reshape to nothing left out": (17, lambda g: g.add("Reshape", "images", I(g, 0, 4, 5, 2))),
    "reshape that allows 0": (17, lambda g: g.add("Reshape", "images", I(g, -1, 8, 5), allowzero=1)),
    "squeeze all": (11, lambda g: g.add("Squeeze", g.add("Unsqueeze", "images", axes=[1, 3]))),
    "unsqueeze from behind": (17, lambda g: g.add("Unsqueeze", "images", I(g, -1, 2))),
    "split unevenly": (18, lambda g: g.add("Split", "images", outputs=2, axis=-1, num_outputs=2)[1]),
    "split off nothing": (
        17,
        lambda g: g.add("Concat", *g.add("Split", "images", I(g, 0, 4), outputs=2, axis=2), axis=2),
    ),
    "split evenly": (11, lambda g: g.add("Split", "images", outputs=2, axis=2)[1]),
    "slices": (
        17,
        lambda g: g.add("Slice", "images", I(g, -1, 1, 3), I(g, -5, 3, 5), I(g, 2, 1, 3), I(g, -2, 1, 1)),
    ),
    "slice of half": (17, lambda g: g.add("Slice", "images", I(g, 2), I(g, 4), I(g, 2))),
    "slice in between": (17, lambda g: g.add("Slice", "images", I(g, 1), I(g, 3), I(g, 2))),
    "slice of all axes": (17, lambda g: g.add("Slice", "images", I(g, 0, 1), I(g, 2**31 - 1, 9))),
    "slice of old": (9, lambda g: g.add("Slice", "images", starts=[0, 1], ends=[2**31 - 1, 2])),
    "gather one": (17, lambda g: g.add("Gather", "images", g.constant(-1, np.int64), axis=1)),
    "gather the last": (17, lambda g: g.add("Gather", "images", I(g, 3, -4), axis=-2)),
    "gather a plane": (17, lambda g: g.add("Gather", "images", g.constant([[0, -1]] * 3, np.int64), axis=3)),
    "expand": (17, lambda g: g.add("Expand", g.add("Unsqueeze", "images", I(g, 1)), I(g, 3, 1, 1, 1))),
    "tile": (17, lambda g: g.add("Tile", "images", I(g, 1, 2, 1, 3))),
    "pad": (17, lambda g: g.add("Pad", "images", I(g, 0, 0, 1, 0, 0, 2, 0, 1))),
    "pad some": (18, lambda g: g.add("Pad", "images", I(g, 1, 0, 0, 2), "", I(g, -1, 1), mode="constant")),
    "reflect": (17, lambda g: g.add("Pad", "images", I(g, 0, 0, 0, 2, 0, 0, 0, 1), mode="reflect")),
    "convolution of rows": (
        17,
        lambda g: g.add("Conv", g.add("Reshape", "images", I(g, 0, 2, 20)), g.weight(3, 2, 4), strides=[3]),
    ),
    "transposed convolution by default": (
        17,
        lambda g: g.add("ConvTranspose", "images", g.weight(2, 3, 2, 2)),
    ),
    "product with constants": (
        17,
        lambda g: g.add(
            "Gemm",
            g.add("Flatten", "images"),
            g.add(
                "Gemm", g.weight(3, 40), g.weight(5, 3), g.weight(5), transA=1, transB=1, alpha=0.5, beta=2.0
            ),
            g.weight(1, 5),
            beta=0.5,
        ),
    ),
    "product with what depends on the images": (
        17,
        lambda g: g.add(
            "Gemm",
            g.add("Flatten", "images"),
            g.weight(3, 40),
            g.add("MatMul", g.add("Flatten", "images"), g.weight(40, 3)),
            transB=1,
            alpha=0.5,
            beta=2.0,
        ),
    ),
    "product with a row": (17, lambda g: g.add("MatMul", "images", g.weight(5))),
    "normalisation of batches": (
        17,
        lambda g: g.add(
            "BatchNormalization", "images", g.weight(2), g.weight(2), g.weight(2), g.constant([1e-6, 2e-5])
        ),
    ),
    "normalisation of layers": (
        17,
        lambda g: g.add(
            "LayerNormalization",
            g.add("Mul", "images", g.constant(0.01)),
            g.weight(5),
            g.weight(4, 1),
            axis=-2,
        ),
    ),
    "normalisation of a row": (
        17,
        lambda g: g.add("LayerNormalization", g.add("Mul", "images", g.constant(0.01)), g.weight(5)),
    ),
    "normalisation of instances": (
        17,
        lambda g: g.add(
            "InstanceNormalization", g.add("Mul", "images", g.constant(0.01)), g.weight(2), g.weight(2)
        ),
    ),
    "average of all": (17, lambda g: g.add("GlobalAveragePool", g.add("Reshape", "images", I(g, 0, 4, 10)))),
    "reductions": (
        17,
        lambda g: g.add(
            "Add",
            g.add("ReduceLogSumExp", "images", axes=[-1, 1]),
            g.add("ReduceL2", "images", axes=[1], keepdims=1),
        ),
    ),
    "no reduction": (18, lambda g: g.add("ReduceMean", "images", noop_with_empty_axes=1)),
    "reduction of a constant": (
        17,
        lambda g: g.add("Add", "images", g.add("ReduceMean", g.weight(2, 4, 5))),
    ),
    "largest": (
        17,
        lambda g: read_of(
            g, g.add("ArgMax", g.weight(4, 3)), g.add("ArgMax", g.weight(4, 3), axis=1, keepdims=0)
        ),
    ),
    **{f"reductions in opset {opset}": (opset, reductions) for opset in (11, 13, 17, 18, 20)},
    "softmax": (17, lambda g: g.add("Softmax", "images")),
    "softmax of old": (11, lambda g: g.add("LogSoftmax", "images")),
    "functions": (
        17,
        lambda g: g.add(
            "Sum",
            g.add("LeakyRelu", g.add("Neg", "images")),
            g.add("Celu", g.add("Neg", "images"), alpha=0.6),
            g.add("Celu", g.add("Neg", "images")),
            g.add("Elu", g.add("Neg", "images")),
            g.add("Softplus", g.add("Mul", "images", g.constant(60.0))),
            g.add("ThresholdedRelu", g.add("Mul", "images", g.constant(3.0))),
            g.add("HardSigmoid", g.add("Mul", "images", g.constant(0.5)), beta=0.4),
            g.add("Pow", "images", g.constant(1.5)),
            g.add("Mean", "images", g.constant(0.5), "images"),
            g.add("Max", "images", g.constant(0.3), g.constant(0.5)),
            g.add("Clip", "images"),
            *(
                g.add("Clip", g.add("Mul", "images", g.constant(9.0)), *map(g.constant, limits))
                for limits in ([1.0], [1.0, 6.0], [0.0, 7.0])
            ),
            g.add("Selu", g.add("Neg", "images"), alpha=1.6733),
            g.add("Dropout", "images", g.constant(0.5), g.constant(False, np.bool_)),
            g.add("CastLike", "images", g.constant(1.0)),
        ),
    ),
    "constants of every type": (
        17,
        lambda g: read_of(
            g, *(g.add("Cast", g.constant([0, 0.75, 2.75]), to=kind) for kind in range(1, 14) if kind != 8)
        ),
    ),
    "conditions": (
        17,
        lambda g: g.add(
            "Where", g.add("Greater", g.weight(4, 5), g.constant(0.0)), "images", g.add("Neg", "images")
        ),
    ),
}
"""Operations with options and defaults that random graphs seldom have, each with its opset."""
