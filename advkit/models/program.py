"""A program of ``torch.export`` as a network.

PyTorch's own reader unpickles objects and evaluates expressions of the file. This one reads the graph, which
is JSON, and calls functions of ``aten`` by name and nothing else. It reads files of PyTorch 2.4 and later,
whichever version is installed. Layers with weights become modules under the names that they had.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from advkit.core.errors import ModelError
from advkit.models.card import Shape

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
"""By the numbers that files have for them."""
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_WORDS = {"rounding_mode", "approximate", "indexing", "equation", "padding", "mode", "interpolation"}
"""Arguments that may be text; no function that opens a file is among those that have them."""
_OPERATORS = {
    *("getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "pow"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"),
}


class Ref(NamedTuple):
    """A value that an earlier step has computed."""

    name: str


class _OfImages(NamedTuple):
    """The number of images, or their device, at the time of the call."""

    fact: str


_COUNT, _DEVICE = _OfImages("count"), _OfImages("device")


@dataclass(frozen=True)
class Step:
    """One call."""

    name: str
    """Of the function in aten, ``conv2d``."""
    call: Callable[..., Any] | str
    """A function, or the place of a layer."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]
    listed: bool
    """The outputs are a list."""


_SIZED = ("view", "reshape", "_unsafe_view", "expand", "zeros", "ones", "full", "new_zeros", "empty")
"""Functions with a size, whose first number can be that of the images."""


def _method(name: str) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


_PUBLIC: dict[str, Callable[..., Any]] = {
    "linear": functional.linear,
    "conv2d": functional.conv2d,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "leaky_relu_": lambda x, slope=0.01: functional.leaky_relu(x, slope, inplace=True),
    "max_pool2d": torch.max_pool2d,
    "avg_pool2d": functional.avg_pool2d,
    "adaptive_avg_pool2d": functional.adaptive_avg_pool2d,
    "mean": torch.mean,
    "dropout": functional.dropout,
    "dropout_": lambda x, p, train: functional.dropout(x, p, train, inplace=True),
    "cat": torch.cat,
    "chunk": torch.chunk,
    "flatten": torch.flatten,
    "squeeze": torch.squeeze,
    "unsqueeze": torch.unsqueeze,
    "view": _method("reshape"),
    "_unsafe_view": _method("reshape"),
    "sym_size": _method("size"),
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg")},
    **{name: _method(name) for name in ("reshape", "relu_", "add_", "sub_", "mul_", "div_", "contiguous")},
}
"""Functions under the names by which a traced network is read elsewhere; the others are called in aten."""


class Program(nn.Module):
    """The network of one program.

    Args:
        content: the program, as files hold it.
        tensors: its parameters, buffers and constants by name.

    Raises:
        ModelError: it does what no classifier of images does, or what this version of PyTorch cannot do.
    """

    def __init__(self, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        module = content["graph_module"]
        graph, signature = module["graph"], module["signature"]
        self.weights = nn.Module()
        self.held: dict[str, str] = {}
        """The names of those values that are parameters, buffers and constants, and the names of these."""
        images = []
        for spec in signature["input_specs"]:
            ((kind, value),) = spec.items()
            if kind == "user_input" and "as_tensor" in value["arg"]:
                images.append(value["arg"]["as_tensor"]["name"])
            elif kind in ("parameter", "buffer", "tensor_constant"):
                name = value[f"{kind}_name"]
                self._hold(value["arg"]["name"], name, tensors[name], parameter=kind == "parameter")
            else:
                raise ModelError(f"the program has an input that is no tensor ({kind}); export it without")
        if len(images) != 1:
            raise ModelError(
                f"the program takes {len(images)} tensors; export a network that takes images alone"
            )
        self.images: str = images[0]
        kind = DTYPES[graph["tensor_values"][self.images]["dtype"]]
        if not kind.is_floating_point:
            raise ModelError(
                f"the program takes images of {str(kind).removeprefix('torch.')}, which have no gradients; "
                "export the network with floating-point images"
            )
        self.outputs = [
            _value("", spec["user_output"]["arg"])
            for spec in signature["output_specs"]
            if "user_output" in spec
        ]
        self.steps = [step for node in graph["nodes"] if (step := self._step(node)) is not None]
        sizes = [size.get("as_int") for size in graph["tensor_values"][self.images]["sizes"]]
        self.batch: int | None = sizes[0]
        """The one number of images that it takes; None for any."""
        self.shape: Shape | None = None if None in sizes[1:] or len(sizes) != 4 else tuple(sizes[1:])
        """Of the images; None where it takes several, or none."""
        last = self.outputs[0] if len(self.outputs) == 1 else None
        out = graph["tensor_values"].get(last.name, {}).get("sizes", []) if isinstance(last, Ref) else []
        self.classes: int | None = out[1].get("as_int") if len(out) == 2 else None

    def forward(self, x: Tensor) -> Any:
        """What the program returns for images (N, C, H, W)."""
        if self.batch is None or not isinstance(x, Tensor):  # a symbol, in a graph
            return self._run(self.steps, x)
        short = -len(x) % self.batch
        padded = torch.cat([x, x[-1:].expand(short, *x.shape[1:])]) if short else x
        parts = [self._run(self.steps, part) for part in padded.split(self.batch)]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)[: len(x)]
        return tuple(torch.cat(values)[: len(x)] for values in zip(*parts, strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 of what is called and with what, without the values of the weights."""
        calls = [(step.name, step.args, sorted(step.kwargs.items()), step.outputs) for step in self.steps]
        return hashlib.sha256(repr((self.held, calls, self.outputs)).encode()).hexdigest()

    def free(self) -> None:
        """Takes batches of any size, if one of another size is answered as its images are one by one."""
        if self.batch is None or self.shape is None:
            return
        steps = [_freed(step, self.batch) for step in self.steps]
        parameter = next(self.parameters(), torch.zeros(()))
        x = torch.linspace(0, 1, (count := self.batch + 2) * self.shape[0] * self.shape[1] * self.shape[2])
        x = x.view(count, *self.shape).flip(0).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            try:
                expected, found = self(x), self._run(steps, x)
                same = torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
                return
        if same and found.shape == expected.shape:
            self.steps, self.batch = steps, None

    def _run(self, steps: Sequence[Step], x: Tensor) -> Any:
        known: dict[str, Any] = {self.images: x}

        def value(arg: Any) -> Any:
            if isinstance(arg, Ref):
                return known[arg.name] if arg.name in known else self._tensor(self.held[arg.name])
            if isinstance(arg, _OfImages):
                return x.shape[0] if arg == _COUNT else x.device
            return [value(part) for part in arg] if isinstance(arg, list) else arg

        for step in steps:
            call = self.weights.get_submodule(step.call) if isinstance(step.call, str) else step.call
            result = call(*map(value, step.args), **{key: value(arg) for key, arg in step.kwargs.items()})
            if step.listed or (len(step.outputs) > 1 and isinstance(result, tuple | list)):
                known.update((name, result[place]) for place, name in enumerate(step.outputs))
            else:
                known[step.outputs[0]] = result
        returned = [value(output) for output in self.outputs]
        return returned[0] if len(returned) == 1 else tuple(returned)

    def _step(self, node: Mapping[str, Any]) -> Step | None:
        outputs = [part for output in node["outputs"] for part in _names(output)]
        if not outputs:
            return None  # an assertion
        name, function = _function(node["target"])
        given = {entry["name"]: _value(entry["name"], entry["arg"]) for entry in node["inputs"]}
        if given.get("training") is True and given.get("running_mean") is not None:
            raise ModelError(
                "the program was exported in train mode: its batch norm makes an image's class depend on the "
                "rest of the batch; call network.eval() before torch.export.export"
            )
        listed = len(node["outputs"]) == 1 and "as_tensors" in node["outputs"][0]
        call, args, kwargs = function, tuple(given.values()), dict[str, Any]()
        if isinstance(function, torch._ops.OpOverload):
            args, kwargs = _ordered(function, given)
            if (place := self._layer(name, given)) is not None:
                call, args, kwargs = place, args[:1], {}
            elif name in _PUBLIC:
                call = _PUBLIC[name]
        return Step(name, call, args, kwargs, tuple(outputs), listed)

    def _layer(self, kind: str, given: Mapping[str, Any]) -> str | None:
        """Makes the layer with weights that a call is, and returns its place, after which they are named."""
        names = {key: self.held.get(arg.name, "") for key, arg in given.items() if isinstance(arg, Ref)}
        path, _, last = names.get("weight", "").rpartition(".")
        parts = ("bias", "running_mean", "running_var")
        if not path or last != "weight" or any(names.get(n, f"{path}.{n}") != f"{path}.{n}" for n in parts):
            return None
        above, _, own = path.rpartition(".")
        parent, place = self.weights.get_submodule(above), self.weights.get_submodule(path)
        if type(place) is not nn.Module or place._modules:
            return None  # another layer has the same weights
        weight = self._tensor(names["weight"])
        layer: nn.Module
        if kind == "linear":
            layer = nn.Linear(weight.shape[1], weight.shape[0], "bias" in names, device="meta")
        elif kind == "conv2d" and not isinstance(given.get("padding"), str):
            keys = ("stride", "padding", "dilation")
            more: dict[str, Any] = {key: tuple(given[key]) for key in keys if key in given}
            groups = given.get("groups", 1)
            channels = weight.shape[1] * groups, weight.shape[0]
            size = (weight.shape[2], weight.shape[3])
            layer = nn.Conv2d(*channels, size, groups=groups, bias="bias" in names, device="meta", **more)
        elif kind.endswith(("batch_norm", "no_training")) and not given.get("training"):
            layer = nn.BatchNorm2d(len(weight), given["eps"], device="meta")
        else:
            return None
        layer._parameters |= place._parameters
        layer._buffers |= place._buffers
        parent._modules[own] = layer.eval()
        return path

    def _hold(self, value: str, name: str, tensor: Tensor, *, parameter: bool) -> None:
        *path, last = name.split(".")
        place = self.weights
        for part in path:
            place = place._modules.setdefault(part, nn.Module())  # type: ignore[assignment]
        if parameter and tensor.is_floating_point():
            place._parameters[last] = nn.Parameter(tensor.detach())
        else:
            place._buffers[last] = tensor.detach()
        self.held[value] = name

    def _tensor(self, name: str) -> Tensor:
        path, _, last = name.rpartition(".")
        place = self.weights.get_submodule(path)
        found = {**place._parameters, **place._buffers}[last]
        assert found is not None
        return found


def _freed(step: Step, batch: int) -> Step:
    """The step for any number of images, where it makes something of their size."""
    if step.name not in _SIZED:
        return step
    sizes = (list(arg) if isinstance(arg, list) else arg for arg in step.args)
    args = tuple([_COUNT, *arg[1:]] if isinstance(arg, list) and arg[:1] == [batch] else arg for arg in sizes)
    return replace(step, args=args)


def _function(target: str) -> tuple[str, Any]:
    """A function and its name in aten, or among Python's operators on sizes."""
    module, _, name = target.partition(".")
    if module in ("_operator", "operator") and name in _OPERATORS:
        return name, getattr(operator, name)
    named = re.fullmatch(r"torch\.ops\.aten\.([a-z_]\w*)\.(\w+)", target)
    found = getattr(getattr(torch.ops.aten, named[1], None), named[2], None) if named else None
    if named is None or not isinstance(found, torch._ops.OpOverload):
        raise ModelError(
            f"the program calls {target}, and only functions of aten that this PyTorch has are read; "
            "give the network itself, as package.module:function or in Python"
        )
    return named[1], found


def _ordered(function: Any, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments by place, those left out before the last one by their defaults; the rest by name."""
    arguments = function._schema.arguments
    places = [argument for argument in arguments if not argument.kwarg_only]
    while places and places[-1].name not in given:
        places.pop()
    args = tuple(given.get(argument.name, argument.default_value) for argument in places)
    return args, {name: arg for name, arg in given.items() if name not in {a.name for a in places}}


def _value(name: str, arg: Mapping[str, Any]) -> Any:
    """An argument called ``name``; values that other steps compute as a `Ref`."""
    ((kind, value),) = arg.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_optional_tensor"):
        return _value(name, value) if "name" not in value else Ref(value["name"])
    if kind in ("as_tensors", "as_optional_tensors"):
        return [_value(name, part) if "name" not in part else Ref(part["name"]) for part in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return Ref(value["as_name"]) if "as_name" in value else next(iter(value.values()))
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_value(name, {kind[:-1]: part}) for part in value]
    if kind in ("as_int", "as_ints", "as_bool", "as_bools"):
        return value
    if kind == "as_float":
        return float(value)  # an infinity is written as text
    if kind == "as_floats":
        return [float(part) for part in value]
    if kind == "as_string" and name in _WORDS:
        return value
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return _FORMATS[value]
    if kind == "as_layout" and value == 7:
        return torch.strided
    if kind == "as_device":
        return _DEVICE
    raise ModelError(
        f"the program has an argument {name!r} of the kind {kind.removeprefix('as_')}, which no classifier "
        "needs; give the network itself, as package.module:function or in Python"
    )


def _names(output: Mapping[str, Any]) -> Iterator[str]:
    """The names under which a step's output is known later."""
    ((kind, value),) = output.items()
    if kind in ("as_tensors", "as_optional_tensors"):
        yield from (part["name"] for part in value)
    elif kind != "as_none":
        yield value["name"] if "name" in value else value["as_name"]
