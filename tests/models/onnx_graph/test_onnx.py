from __future__ import annotations

import base64
import inspect
import math
import re
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

onnx = pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator  # noqa: E402 (only where onnx is installed)

from advkit import Threat, certify, evaluate, load_model, save_model  # noqa: E402
from advkit.core.errors import ConfigError, ModelError  # noqa: E402
from advkit.models.model import Model  # noqa: E402
from advkit.models.onnx_graph.content import content  # noqa: E402
from advkit.models.onnx_graph.read import check_batches, read  # noqa: E402
from advkit.verify.bounds.read import check  # noqa: E402
from advkit.verify.bounds.read import read as bounds  # noqa: E402
from tests.models.onnx_graph.onnx_graphs import OPTIONS, Drawn, Graph  # noqa: E402

quick = settings(suppress_health_check=list(HealthCheck), phases=(Phase.generate,))


def of_one_node(kind: str, inputs: dict[str, Any], shape: Any, opset: int = 17, **attributes: Any) -> Any:
    """A graph of images "x", other inputs as constants, and the output "y"."""
    value, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, ["x", *inputs], ["y"], name="here", **attributes)],
        "graph",
        [value("x", kinds.FLOAT, ["N", *shape])],
        [value("y", kinds.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in inputs.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def compare(data: Any, evaluated: Any, *, strict: bool) -> None:
    """A random graph computes what something else says, for several batches at once."""
    g, logits = Drawn(data, strict=strict).graph()
    model = g.model(logits)
    network = read(content(model, "net.onnx", None), None)
    count, *shape = g.values["images"].shape
    assert network.shape == tuple(shape)
    batches = [np.random.default_rng(k).random((count, *shape)).astype(np.float32) for k in range(2)]
    run = evaluated(model)
    wanted = np.concatenate([run(images) for images in batches])
    with torch.no_grad():
        found = network.module(torch.from_numpy(np.concatenate(batches)))
        twice = network.module.double()(torch.from_numpy(np.concatenate(batches)).double())
    tolerance = 1e-5 * max(1.0, float(np.abs(wanted).max()))
    torch.testing.assert_close(found, torch.from_numpy(wanted), atol=tolerance, rtol=1e-5)
    torch.testing.assert_close(twice.float(), torch.from_numpy(wanted), atol=2 * tolerance, rtol=2e-5)


@settings(quick, max_examples=60)
@given(st.data())
def test_random_graphs_compute_what_the_reference_of_onnx_does(data: Any) -> None:
    compare(data, lambda model: lambda x: ReferenceEvaluator(model).run(None, {"images": x})[0], strict=True)


@settings(quick, max_examples=60)
@given(st.data())
def test_random_graphs_compute_what_onnxruntime_does(data: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")

    def evaluated(model: Any) -> Any:
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"images": x})[0]

    compare(data, evaluated, strict=False)


@settings(quick, max_examples=150)
@given(st.data())
def test_windows_move_as_in_onnxruntime(data: Any) -> None:
    """Convolutions and poolings padded and rounded in every way."""
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(4)

    def some(*choices: Any) -> Any:
        return data.draw(st.sampled_from(choices))

    kind, kernel, size = (
        some("Conv", "MaxPool", "AveragePool"),
        [some(1, 2, 3) for _ in "hw"],
        some(5, 6, 7, 8),
    )
    more: dict[str, Any] = {"kernel_shape": kernel, "strides": [some(1, 2, 3) for _ in "hw"]}
    auto = some(None, None, "SAME_UPPER", "SAME_LOWER", "VALID")
    pads = [data.draw(st.integers(0, length - 1)) for length in kernel * 2]
    more |= {"pads": pads} if auto is None else {"auto_pad": auto}
    if kind != "AveragePool" and (auto is None or kind == "Conv"):
        more["dilations"] = [some(1, 2) for _ in "hw"]
    if kind != "Conv":
        more["ceil_mode"] = some(0, 1)
    if kind == "AveragePool":
        more["count_include_pad"] = some(0, 1)
    random = np.random.default_rng(some(*range(20)))
    weight = {"w": random.random((4, 1, *kernel)).astype(np.float32)} if kind == "Conv" else {}
    groups = {"group": 2} if kind == "Conv" else {}
    model = of_one_node(kind, weight, (2, size, 7), some(12, 19, 22), **more, **groups)
    x = random.random((2, 2, size, 7)).astype(np.float32) - 0.5
    try:
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (wanted,) = session.run(None, {"x": x})
    except Exception:  # it cannot do everything that the standard has
        return
    found = read(content(model, "net.onnx", None), None).module(torch.from_numpy(x))
    torch.testing.assert_close(found.detach(), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)


@settings(quick, max_examples=60)
@given(st.data())
def test_a_transposed_convolution_is_that_of_onnxruntime_or_refused(data: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(4)

    def two(*choices: Any) -> list[Any]:
        return [data.draw(st.sampled_from(choices)) for _ in "hw"]

    more: dict[str, Any] = {
        "strides": two(2, 3),
        "dilations": two(1, 2),
        "output_padding": two(0, 1),
        "group": 2,
    }
    begin, end = two(0, 1), two(0, 1)
    size, auto = two(9, 10), two("SAME_UPPER", "SAME_LOWER", "VALID")[0]
    other: Any = data.draw(
        st.sampled_from([{}, {}, {"output_shape": size}, {"auto_pad": auto}, {"pads": begin + end}])
    )
    model = of_one_node(
        "ConvTranspose",
        {"w": weights(2, 3, *two(2, 3)), "b": weights(6)},
        (2, 4, 5),
        **{"pads": begin * 2} | more | other,
    )
    x = np.random.default_rng(1).random((3, 2, 4, 5)).astype(np.float32)
    try:
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (wanted,) = session.run(None, {"x": x})
    except Exception:  # sizes that do not fit
        return
    if other and (other.get("pads") is None or begin != end):
        with pytest.raises(ModelError):
            read(content(model, "net.onnx", None), None)
        return
    found = read(content(model, "net.onnx", None), None).module(torch.from_numpy(x))
    torch.testing.assert_close(found.detach(), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)


def weights(*shape: int) -> Any:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


ALONE: Any = {  # which the reference of ONNX cannot compute
    "padding taken away": of_one_node(
        "Pad", {"p": np.array([0, 0, -1, 2, 0, 0, 1, -2]), "v": np.float32(0.3)}, (2, 4, 5)
    ),
    "windows with gaps between them": of_one_node(
        "Conv", {"w": weights(3, 2, 2, 1)}, (2, 4, 5), strides=[4, 3], auto_pad="SAME_UPPER"
    ),
    "local response": of_one_node("LRN", {}, (2, 4, 5), size=1),
    "far out": of_one_node("Softplus", {}, (2, 4, 5)),
    "local response, said": of_one_node("LRN", {}, (2, 4, 5), size=1, alpha=0.3, beta=0.5, bias=2.0),
}


@pytest.mark.parametrize("name", [*OPTIONS, *ALONE])
def test_options_and_defaults_are_those_of_onnxruntime(name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(1).random((3, 2, 4, 5)).astype(np.float32)
    model = ALONE.get(name)
    if model is None:
        opset, made = OPTIONS[name]
        graph = Graph(x, opset)
        model = graph.model(made(graph))
    x = np.concatenate([x, 1 - x]) * {"local": 30, "far": 150}.get(name.split()[0], 1)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {model.graph.input[0].name: x})
    found = read(content(model, "net.onnx", None), None).module(torch.from_numpy(x))
    torch.testing.assert_close(found.detach(), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)


def info(name: str, *dims: Any, kind: int = 1) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, dims)


def model_of(nodes: Any, inputs: Any, outputs: Any, tensors: Any = (), opset: int = 17) -> Any:
    graph = onnx.helper.make_graph(nodes, "graph", inputs, outputs, list(tensors))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def linear(*dims: Any, classes: int = 3, dtype: Any = np.float32) -> Any:
    """A flat network of images of any layout."""
    inputs = int(np.prod(dims))
    weight = np.random.default_rng(0).normal(0, 0.3, (classes, inputs)).astype(dtype)
    nodes = [
        onnx.helper.make_node("Flatten", ["images"], ["row"]),
        onnx.helper.make_node("Gemm", ["row", "dense.weight"], ["logits"], transB=1),
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    tensor = onnx.numpy_helper.from_array(weight, "dense.weight")
    return model_of(
        nodes, [info("images", "N", *dims, kind=kind)], [info("logits", "N", classes, kind=kind)], [tensor]
    )


def saved(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def weight_of(model: Any) -> Any:
    return torch.from_numpy(np.array(onnx.numpy_helper.to_array(model.graph.initializer[0]))).float()


def test_a_file_is_a_model_with_its_shape_and_classes(tmp_path: Path) -> None:
    model = linear(2, 4, 5)
    x, weight = torch.rand(6, 2, 4, 5), weight_of(model)
    path = saved(model, tmp_path / "net.onnx")
    other = saved(model, tmp_path / "net.bin")  # known by what is in it
    for where in (path, str(path), f"onnx:{path}", other, model):
        found = load_model(where)
        assert (found.card.shape, found.card.classes, found.card.role) == ((2, 4, 5), 3, "classifier")
        torch.testing.assert_close(found(x), x.flatten(1) @ weight.T)
        assert [note.code for note in found.notes] == ["normalisation-assumed"]
    scaled = load_model(path, mean=(0.5, 0.25), std=(0.5, 0.5), shape=(1, 28, 28))
    shifted = (x - torch.tensor([0.5, 0.25]).view(2, 1, 1)) / 0.5
    torch.testing.assert_close(scaled(x), shifted.flatten(1) @ weight.T)
    assert all(parameter.requires_grad for parameter in scaled.parameters())
    assert sum(parameter.numel() for parameter in scaled.parameters()) == weight.numel()


def test_images_are_arranged_as_the_file_wants_them(tmp_path: Path) -> None:
    x = torch.rand(4, 3, 5, 4)
    last = load_model(saved(model := linear(5, 4, 3), tmp_path / "last.onnx"))
    assert last.card.shape == (3, 5, 4)
    torch.testing.assert_close(last(x), x.permute(0, 2, 3, 1).flatten(1) @ weight_of(model).T)
    assert [note.code for note in last.notes] == ["input-arranged", "normalisation-assumed"]
    for dims, codes in (((60,), 2), ((60, 1), 2), ((1, 60), 2), (("C", "H", "W"), 1)):
        model = linear(*(dims if len(dims) < 3 else (3, 5, 4)))
        if len(dims) == 3:
            model.graph.input[0].CopyFrom(info("images", "N", *dims))
        path = saved(model, tmp_path / "flat.onnx")
        found = load_model(path, shape=(3, 5, 4))
        torch.testing.assert_close(found(x), x.flatten(1) @ weight_of(model).T)
        assert len(found.notes) == codes
        with pytest.raises(ConfigError, match="shape"):
            load_model(path)
        if len(dims) < 3:
            with pytest.raises(ConfigError):
                load_model(path, shape=(1, 8, 8))
    model = linear(5, 4, 3)
    model.graph.input[0].CopyFrom(info("images", "N", "H", 4, 3))
    found = load_model(saved(model, tmp_path / "open.onnx"), shape=(3, 5, 4))
    torch.testing.assert_close(found(x), x.permute(0, 2, 3, 1).flatten(1) @ weight_of(model).T)
    path = saved(linear(20), tmp_path / "grey.onnx")
    assert [note.code for note in load_model(path, shape=(1, 5, 4)).notes] == ["normalisation-assumed"]
    assert load_model(saved(linear(5, 4), tmp_path / "plane.onnx")).card.shape == (1, 5, 4)
    assert load_model(saved(linear(3, 3, 3), tmp_path / "small.onnx")).card.shape == (3, 3, 3)
    assert load_model(saved(linear(5, 4, 1), tmp_path / "one.onnx"), shape=(1, 5, 4)).card.shape == (1, 5, 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_are_computed_in_float32(dtype: Any, tmp_path: Path) -> None:
    model = linear(1, 3, 3, dtype=dtype)
    found = load_model(saved(model, tmp_path / "net.onnx"))
    x = torch.rand(2, 1, 3, 3)
    torch.testing.assert_close(found(x), x.flatten(1) @ weight_of(model).T)
    assert [note.code for note in found.notes] == ["weights-converted", "normalisation-assumed"]


@pytest.mark.parametrize("kind", onnx.TensorProto.DataType.items())
def test_images_are_cast_to_floating_point_numbers_alone(kind: tuple[str, int]) -> None:
    """Of any width, which are all computed in float32."""
    model, x = of_one_node("Cast", {}, (1, 4, 5), to=kind[1]), torch.rand(2, 1, 4, 5)
    wide = kind[0] in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
    with nullcontext() if wide else pytest.raises(ModelError):
        assert torch.equal(read(content(model, "net.onnx", None), None).module(x), x)


def test_a_model_that_is_saved_is_loaded_without_its_file(tmp_path: Path) -> None:
    g = Graph(np.random.default_rng(0).random((1, 3, 8, 8)), 17, fixed=True)
    x = g.add("Conv", "images", g.weight(4, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    x = g.add("Clip", g.add("Mul", x, g.constant(0.7)), g.constant(0.0), g.constant(6.0))
    x = g.add("AveragePool", g.add("Add", x, g.weight(4, 1, 1)), kernel_shape=[2, 2], pads=[1, 1, 0, 0])
    x = g.add("Reshape", x, g.constant([1, -1], np.int64))
    x = g.add("Gemm", x, g.weight(g.shape(x)[1], 5))
    model = load_model(g.save(tmp_path / "net.onnx", x))
    images = torch.rand(3, 3, 8, 8)
    for name in ("net.pt", "net.safetensors"):
        again = load_model(save_model(model, tmp_path / name))
        assert torch.equal(again(images), model(images)) and again.hash == model.hash
    assert b"raw_data" not in (graph := base64.b64decode(model.card.config["graph"])) and len(graph) < 1500
    other = model.card.model_copy(update={"config": {"graph": "no graph"}})
    with pytest.raises(ModelError):
        load_model(save_model(Model(model.network, other), tmp_path / "other.pt"))


def test_two_graphs_of_the_same_weights_have_other_hashes(tmp_path: Path) -> None:
    model = linear(1, 3, 3)
    first = load_model(saved(model, tmp_path / "one.onnx"))
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("alpha", 1.0))
    assert load_model(saved(model, tmp_path / "one.onnx")).hash != first.hash


def test_tensors_in_files_beside_the_graph(tmp_path: Path) -> None:
    model = linear(1, 3, 3)
    weight = weight_of(model)
    (tmp_path / "net").mkdir()
    raw = model.graph.initializer[0].raw_data
    (tmp_path / "net" / "weights.bin").write_bytes(b"1234" + raw)
    (tmp_path / "secret.bin").write_bytes(b"1234" + raw)
    (tmp_path / "net" / "link.bin").symlink_to(tmp_path / "secret.bin")

    def described(**entries: Any) -> Path:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return saved(model, tmp_path / "net" / "net.onnx")

    good = {"location": "weights.bin", "offset": 4, "length": len(raw)}
    for entries in (good, {"location": "weights.bin", "offset": 4}):
        x = torch.rand(2, 1, 3, 3)
        torch.testing.assert_close(load_model(described(**entries))(x), x.flatten(1) @ weight.T)
    wrong: Any = [
        {"location": "../secret.bin", "offset": 4},
        {"location": str(tmp_path / "secret.bin"), "offset": 4},
        {"location": "link.bin", "offset": 4},
        {"location": "absent.bin"},
        {"location": ""},
        {"location": "."},
        {},
        good | {"offset": 5},
        good | {"offset": -4},
        good | {"length": len(raw) - 4},
        good | {"length": 2**62},
        good | {"offset": "four"},
    ]
    for entries in wrong:
        with pytest.raises(ModelError) as caught:
            load_model(described(**entries))
        assert "\n" not in str(caught.value)
        if "weights.bin" in entries.values() and entries["offset"] == 5:
            assert "weights.bin" in str(caught.value)
    with pytest.raises(ModelError):
        described(**good)
        load_model(model)  # in hand, it has no folder


@pytest.mark.parametrize("dims", [(), (1,), (4, 5)])
def test_a_tensor_of_any_shape_in_a_file_beside_the_graph(dims: tuple[int, ...], tmp_path: Path) -> None:
    array, x = np.full(dims, 3, np.float32), torch.rand(2, 1, 4, 5)
    model = of_one_node("Mul", {"factor": array}, (1, 4, 5))
    (tmp_path / "weights.bin").write_bytes(array.tobytes())
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    assert torch.equal(read(content(model, "net.onnx", tmp_path), None).module(x), 3 * x)


def hostile() -> dict[str, Any]:
    """Files that are refused, as bytes or graphs."""
    node, images, logits = onnx.helper.make_node, info("images", "N", 1, 3, 3), info("logits", "N", 3)
    ok = linear(1, 3, 3)
    data = ok.SerializeToString()
    found: dict[str, Any] = {
        "not ONNX": b"import torch\n",
        "a text": b"\x08hello",
        "nothing in it": onnx.ModelProto(),
        **{f"cut at {k}": data[:k] for k in (1, 20, len(data) // 2, len(data) - 1)},
    }
    big = linear(1, 3, 3)
    big.graph.initializer[0].dims[:] = [2**40, 2**20]
    negative = linear(1, 3, 3)
    negative.graph.initializer[0].dims[:] = [-3, -9]
    strings = linear(1, 3, 3)
    strings.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("dense.weight", 8, [1], [b"a"]))
    integers = linear(1, 3, 3)
    integers.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    broken = linear(1, 3, 3)
    broken.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.full((3, 9), np.nan, np.float32), "dense.weight")
    )
    absent = linear(1, 3, 3)
    del absent.graph.initializer[:]
    old = linear(1, 3, 3)
    old.opset_import[0].version = 6
    new = linear(1, 3, 3)
    new.opset_import[0].version = 23
    custom = linear(1, 3, 3)
    custom.graph.node[0].domain = "com.microsoft"
    typed = linear(1, 3, 3)
    typed.graph.node[1].attribute[0].CopyFrom(onnx.helper.make_attribute("transB", "yes"))
    later = linear(1, 3, 3)  # an attribute that is an input since then would be overlooked
    later.graph.node[0].CopyFrom(node("Squeeze", ["images"], ["row"], axes=[1]))
    sparse = linear(1, 3, 3)
    sparse.graph.sparse_initializer.add()
    gaps = {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"}
    found |= {
        "gaps": model_of([node("MaxPool", ["images"], ["logits"], **gaps)], [images], [logits]),
        "huge": big,
        "negative dimensions": negative,
        "strings": strings,
        "integer images": integers,
        "NaN": broken,
        "missing weights": absent,
        "opset 6": old,
        "opset 23": new,
        "custom operation": custom,
        "wrong type": typed,
        "attribute of another opset": later,
        "operation of a later opset": model_of([node("Gelu", ["images"], ["logits"])], [images], [logits]),
        "too many inputs": model_of([node("Relu", ["images", "images"], ["logits"])], [images], [logits]),
        "sparse": sparse,
        "cycle": model_of(
            [node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"])], [images], [info("b", "N", 3)]
        ),
        "computed twice": model_of([node("Relu", ["images"], ["logits"])] * 2, [images], [logits]),
        "no output": model_of([node("Relu", ["images"], ["a"])], [images], [logits]),
        "two inputs": model_of([node("Add", ["images", "b"], ["logits"])], [images, info("b", 1)], [logits]),
        "no input": model_of([node("Relu", ["w"], ["logits"])], [], [logits], ok.graph.initializer),
        "unknown": model_of([node("Det", ["images"], ["logits"])], [images], [logits]),
        "no inputs to a node": model_of([node("Relu", [], ["logits"])], [images], [logits]),
        "sum of the batch": model_of(
            [node("ReduceSum", ["images"], ["logits"], keepdims=0)], [images], [logits]
        ),
        "softmax of the batch": model_of(
            [node("Softmax", ["images"], ["logits"], axis=0)], [images], [logits]
        ),
        "turned": model_of([node("Transpose", ["images"], ["logits"])], [images], [logits]),
        "no image": model_of([node("Relu", ["images"], ["logits"])], [info("images", "N")], [logits]),
        "a film": model_of(
            [node("Relu", ["images"], ["logits"])], [info("images", "N", 1, 2, 3, 3)], [logits]
        ),
    }
    for name, sizes, kind in (
        ("much", [2**31, 2**31], "ConstantOfShape"),
        ("more than there is", [2**20, 2**20, 1, 1], "Expand"),
        ("often", [1, 2**40, 1, 1], "Tile"),
        ("wide", [0, 0, 0, 0, 0, 0, 2**40, 0], "Pad"),
    ):
        tensor = onnx.numpy_helper.from_array(np.array(sizes, np.int64), "sizes")
        nodes = [node(kind, ["sizes"] if kind == "ConstantOfShape" else ["images", "sizes"], ["a"])]
        nodes.append(node("Add", ["images", "a"], ["logits"]))
        found[name] = model_of(nodes, [images], [logits], [tensor])
    length = [onnx.numpy_helper.from_array(np.array([2**28 + 1]), "sizes")]
    nodes = [node("ConstantOfShape", ["sizes"], ["a"]), node("Shape", ["a"], ["b"])]
    nodes += [node("Cast", ["b"], ["c"], to=1), node("Flatten", ["images"], ["row"])]
    nodes.append(node("Add", ["row", "c"], ["logits"]))
    found["more than is computed"] = model_of(nodes, [images], [info("logits", "N", 9)], length)
    weight = [onnx.numpy_helper.from_array(weights(2, 1, 2, 2), "w")]
    for unfit in ({"pads": [1] * 6}, {"strides": [1] * 3}, {"dilations": [0, 1]}, {"dilations": [-1, -1]}):
        nodes = [node("Conv", ["images", "w"], ["a"], **unfit), node("Flatten", ["a"], ["logits"])]
        found[f"a convolution with {unfit}"] = model_of(nodes, [images], [logits], weight)
    always = [
        onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("r", 0.5), ("t", True))
    ]
    found["random"] = model_of(
        [node("Dropout", ["images", "r", "t"], ["logits"])], [images], [logits], always
    )
    outer = [
        onnx.numpy_helper.from_array(np.zeros(2**20, np.float32).reshape(size), name)
        for name, size in (("r", (1, -1)), ("c", (-1, 1)))
    ]
    product = [node("Add", ["r", "c"], ["a"]), node("Add", ["images", "a"], ["logits"])]
    found["large product"] = model_of(product, [images], [logits], outer)
    return found


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content = hostile()[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "net.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_plain_layers_stay_what_proofs_read() -> None:
    """And compute the same, with the factors and defaults of the operation."""
    padded: dict[str, Any] = {"kernel_shape": [2, 3], "pads": [1, 1, 1, 1]}
    made: list[tuple[Any, type[nn.Module]]] = [
        (lambda g, row: g.add("MatMul", "images", g.weight(5, 3)), nn.Linear),
        (lambda g, row: g.add("MatMul", row, g.weight(40, 3)), nn.Linear),
        (lambda g, row: g.add("Gemm", row, g.weight(40, 3), g.weight(3)), nn.Linear),
        (lambda g, row: g.add("Gemm", row, g.weight(40, 3), g.weight(1, 3), alpha=0.5, beta=3.0), nn.Linear),
        (lambda g, row: g.add("Conv", "images", g.weight(3, 2, 2, 2), pads=[1, 1, 1, 1]), nn.Conv2d),
        (lambda g, row: g.add("MaxPool", "images", **padded), nn.MaxPool2d),
        (lambda g, row: g.add("AveragePool", "images", **padded), nn.AvgPool2d),
    ]
    for make, kind in made:
        g = Graph(np.random.default_rng(3).random((3, 2, 4, 5)), 17)
        name = make(g, g.add("Flatten", "images"))
        module = read(content(g.model(name), "net.onnx", None), None).module
        assert [type(layer) for layer in module.children()] == [kind]
        assert sum(node.op == "call_function" for node in module.graph.nodes) <= (kind is nn.Linear)
        found = module(torch.from_numpy(g.values["images"])).detach()
        torch.testing.assert_close(found, torch.from_numpy(g.values[name]))


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_single_numbers_stay_numbers(kind: str) -> None:
    g = Graph(np.random.default_rng(0).random((3, 2, 4, 5)), 17)
    name = g.add(kind, "images", g.constant(2.5))
    module = read(content(g.model(name), "net.onnx", None), None).module
    assert [node.op for node in module.graph.nodes] == ["placeholder", "call_function", "output"]
    found = module(torch.from_numpy(g.values["images"]))
    torch.testing.assert_close(found, torch.from_numpy(g.values[name]))


@pytest.mark.parametrize("count", [1, 2])
def test_graphs_exported_for_so_many_images(count: int) -> None:
    """A token that every image has goes to each of them; which dimension is left out has to be said where
    there is a single image."""
    g = Graph(np.random.default_rng(0).random((count, 2, 4, 5)), 11, fixed=True)
    token = g.constant(np.repeat(np.random.default_rng(1).random((1, 1, 4, 5)), count, 0))
    model = g.model(g.add("Concat", token, "images", axis=1))
    module, x = read(content(model, "net.onnx", None), None).module, torch.rand(5, 2, 4, 5)
    (wanted,) = ReferenceEvaluator(model).run(None, {"images": x[:count].numpy()})
    torch.testing.assert_close(module(x)[:count], torch.from_numpy(wanted))
    torch.testing.assert_close(
        module(x), torch.cat([torch.from_numpy(wanted[:1, :1]).expand(5, 1, 4, 5), x], 1)
    )
    squeezed = g.model(g.add("Squeeze", g.add("Unsqueeze", "images", axes=[1, 3])))
    with nullcontext() if count > 1 else pytest.raises(ModelError):
        module = read(content(squeezed, "net.onnx", None), None).module
        assert torch.equal(module(x), x)
    zero = g.model(g.add("Flatten", g.add("Mul", "images", g.constant(0.0))))
    check_batches(read(content(zero, "net.onnx", None), None), "net.onnx")


def test_functions_of_a_file_are_put_into_its_graph() -> None:
    opsets, node = (
        [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)],
        onnx.helper.make_node,
    )
    body = [node("Mul", ["x", "x"], ["square"]), node("Add", ["square", "x"], ["y"])]
    model = model_of(
        [node("Own", ["x"], ["y"], domain="own")], [info("x", "N", 1, 2, 3)], [info("y", "N", 1, 2, 3)]
    )
    model.opset_import.append(opsets[1])
    model.functions.append(onnx.helper.make_function("own", "Own", ["x"], ["y"], body, opsets[:1]))
    x = torch.rand(3, 1, 2, 3)
    torch.testing.assert_close(read(content(model, "net.onnx", None), None).module(x), x * x + x)
    body[0].op_type = "Lost"
    del model.functions[:]
    model.functions.append(onnx.helper.make_function("own", "Own", ["x"], ["y"], body, opsets[:1]))
    with pytest.raises(ModelError):
        read(content(model, "net.onnx", None), None)


def test_a_refusal_to_mix_images_names_both_shapes() -> None:
    g = Graph(np.random.default_rng(0).random((2, 3, 4, 5)), 17)
    wanted = g.add("Concat", g.add("Shape", "images", end=1), g.constant([60], np.int64), axis=0)
    model = g.model(g.add("Reshape", g.add("Transpose", "images", perm=[1, 0, 2, 3]), wanted))
    with pytest.raises(ModelError) as caught:
        read(content(model, "net.onnx", None), None)
    after, before = re.findall(r"\[([\d, ]+)\]", str(caught.value))
    assert math.prod(map(int, after.split(","))) == math.prod(map(int, before.split(",")))


def test_rows_of_values_are_what_a_file_takes_that_begins_with_a_matrix(tmp_path: Path) -> None:
    model = of_one_node("MatMul", {"w": weights(60, 3)}, (60,))
    x = torch.rand(4, 3, 5, 4)
    found = load_model(saved(model, tmp_path / "net.onnx"), shape=(3, 5, 4))
    torch.testing.assert_close(found(x), x.flatten(1) @ weight_of(model))


def test_a_refusal_names_the_operation_and_its_node(tmp_path: Path) -> None:
    model = linear(1, 3, 3)
    model.graph.node[0].op_type, model.graph.node[0].name = "NonZero", "the.second"
    with pytest.raises(ModelError, match=r"NonZero.*the\.second"):
        load_model(saved(model, tmp_path / "net.onnx"))
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(ModelError, match=r"of com\.microsoft"):
        load_model(saved(model, tmp_path / "net.onnx"))
    convolved = model_of(
        [onnx.helper.make_node("Conv", ["x", "x"], ["y"])], [info("x", "N", 1, 3, 3)], [info("y", "N", 3)]
    )
    nodes = [
        onnx.helper.make_node("Dropout", ["x"], ["a", "mask"]),
        onnx.helper.make_node("Where", ["mask", "a", "x"], ["y"]),
    ]
    used = model_of(nodes, [info("x", "N", 1, 3, 3)], [info("y", "N", 3)])
    for wrong in (convolved, used):  # an input that depends on the images, an output that is used
        with pytest.raises(ModelError, match="number 2"):
            load_model(saved(wrong, tmp_path / "net.onnx"))


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(linear(1, 3, 3), tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'advkit\[onnx\]'"):
        load_model(path)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.norm, self.last = nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.second(x))
        return self.last(x.mean((2, 3)))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.one(x), nn.functional.leaky_relu(self.other(x), 0.1)], 1)
        first, second = nn.functional.avg_pool2d(x, 4).chunk(2, 1)
        return self.last(torch.cat([second, first], 1).view(x.size(0), -1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, dropout=0.0)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.last(self.block(x)[:, 0])


def networks() -> dict[str, tuple[nn.Module, bool]]:
    """Classifiers of images 3x8x8, and whether bounds can read them."""
    torch.manual_seed(0)
    flat = nn.Flatten()
    return {
        "mlp": (nn.Sequential(flat, nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 5)), True),
        "cnn": (nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), flat, nn.Linear(36, 5)), True),
        "batch norm": (
            nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), flat, nn.Linear(144, 5)
            ),
            True,
        ),
        "pooling": (
            nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), flat, nn.Linear(16, 5)
            ),
            True,
        ),
        "global": (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), flat, nn.Linear(4, 5)),
            True,
        ),
        "groups": (
            nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, dilation=2), nn.ReLU(), flat, nn.Linear(96, 5)),
            True,
        ),
        "smooth": (nn.Sequential(flat, nn.Linear(192, 9), nn.GELU(), nn.Linear(9, 5), nn.Softplus()), False),
        "residual": (Residual(), True),
        "branches": (Branches(), True),
        "attention": (Attention(), False),
    }


@pytest.mark.parametrize("any_batch", [False, True])
@pytest.mark.parametrize("name", networks())
def test_networks_exported_by_pytorch(name: str, any_batch: bool, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    net, bounded = networks()[name]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    path, axes = tmp_path / "net.onnx", {"x": {0: "N"}} if any_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.rand(1, 3, 8, 8)
        how: Any = {"opset_version": 17, "input_names": ["x"], "dynamic_axes": axes}
        how |= {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
        torch.onnx.export(net.eval(), (images,), str(path), **how)
    model = load_model(path, mean=(0.5, 0.4, 0.3))
    x = torch.rand(4, 3, 8, 8)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shifted = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)).numpy()
    wanted = np.concatenate([session.run(None, {"x": row[None]})[0] for row in shifted])
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)
    labels = model(x).argmax(1)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    model(ours)[:, 0].sum().backward()
    net(theirs - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))[:, 0].sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    found = evaluate(model, (x, labels), Threat("linf", 0.5), attack="fgsm")
    assert (found.clean_accuracy, found.n) == (1.0, 4)
    if bounded:
        check(graph := bounds(model), model, x)
        assert graph.classes == 5
    else:
        with pytest.raises(ModelError):
            bounds(model)


@pytest.mark.parametrize("name", ["cifar_resnet_2b", "mnist_fc_256x2"])
def test_public_files(name: str, subjects: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = subjects / f"{name}.onnx"
    model = load_model(path, shape=(1, 28, 28))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    x = torch.rand(5, *model.card.shape)
    wanted = [session.run(None, {given.name: row.reshape(given.shape).numpy()})[0] for row in x]
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.from_numpy(np.concatenate(wanted)), atol=1e-5, rtol=1e-5)
    check(bounds(model), model, x)


def test_the_proofs_of_a_public_network_agree_with_the_truth(subjects: Path) -> None:
    truth = np.load(subjects / "mnist_fc_256x2.truth.npz")
    model = load_model(subjects / "mnist_fc_256x2.onnx", shape=(1, 28, 28))
    for eps, key, least in ((0.03, "eps_003", 9), (0.05, "eps_005", 2)):
        found = certify(model, (truth["x"], truth["y"]), Threat("linf", eps))
        proved = {verdict.id for verdict in found.verdicts if verdict.status == "certified"}
        assert len(proved) >= least
        assert proved <= set(np.flatnonzero(truth[key] == "unsat").tolist())
