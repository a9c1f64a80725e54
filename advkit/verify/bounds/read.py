"""Conversion of a model to a `Graph`, or an error that names the unsupported layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from advkit.core.errors import ModelError
from advkit.models import outputs
from advkit.models.model import Model, evaluation_mode
from advkit.models.trace import Tracer
from advkit.verify.bounds.affine import Affine, Dense, Scale
from advkit.verify.bounds.arrange import Reshape
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.layers import CALLS, MODULES
from advkit.verify.bounds.reading import Reading, Unreadable, Value

TOLERANCE = 1e-3
"""Largest difference between graph and model, relative to the largest logit."""
READABLE = (
    "supported are linear and convolutional layers, batch norm, ReLU, leaky ReLU, clamps, sigmoid, tanh, max "
    "and average pooling, sums, concatenations, padding, reshaping, other orders and dropout; replace the "
    "layer, or attack the model without certifying it"
)


def read(model: Model) -> Graph:
    """The graph of a classifier in eval mode. Its tensors are the model's own parameters, so it stays
    valid in training, and gradients reach them.

    Raises:
        ModelError: a layer that cannot be bounded, which the message names.
    """
    if model.probabilities:
        raise ModelError(f"the model gives probabilities, and a softmax cannot be bounded: {READABLE}")
    tensors = [each for each in (*model.parameters(), *model.buffers()) if each.is_floating_point()]
    like = tensors[0] if tensors else torch.zeros((), dtype=torch.float32)
    count, shape = 2 * math.prod(model.card.shape), model.card.shape
    images = torch.linspace(0, 1, count, dtype=like.dtype, device=like.device).view(2, *shape)
    with evaluation_mode(model):
        traced = _trace(model.network)
        reading = Reading(images)
        first = reading.images
        if model.scale is not None and model.shift is not None:
            first = reading.add("preprocessing", Scale(model.scale[0], model.shift[0]), first)
        last = _logits(_Reader(traced, reading).run(first), model.reading, reading)
        if not isinstance(last, Value) or last.example.dim() != 2:
            raise ModelError(f"the network does not end in logits that can be traced: {READABLE}")
        if not isinstance(reading.nodes[last.place].op, Affine):
            size = tuple(last.example.shape[1:])
            last = reading.add("logits", Reshape(size, size), last)
    return Graph(tuple(reading.nodes[: last.place + 1]))


def _logits(returned: Any, taken: outputs.Reading | None, reading: Reading) -> Any:
    """The logits in what a network ``returned``, as the model takes them: a `Value` if they are traced."""
    if taken is None:
        return returned
    try:
        returned = taken.part(returned)
    except (AttributeError, LookupError, TypeError):  # a symbol took another way than the images
        return None
    if not isinstance(returned, Value):
        return None
    size = returned.size
    if taken.flat or size != (math.prod(size),):
        returned = reading.add("logits", Reshape(size, (math.prod(size),)), returned, number=False)
    if taken.single:
        second = torch.tensor([[0.0], [1.0]], dtype=returned.example.dtype, device=returned.example.device)
        returned = reading.add("logits", Dense(second, None), returned, number=False)
    return returned


def check(graph: Graph, model: Model, images: Tensor) -> None:
    """Raises ModelError if graph and model disagree on ``images`` (N, C, H, W)."""
    with evaluation_mode(model), torch.no_grad():
        logits, traced = model(images).double(), graph.forward(images).double()
    if not (traced - logits).abs().max() <= TOLERANCE * logits.abs().max():
        raise ModelError(
            "the model computes something that tracing does not show (a hook, or a branch on values); "
            "make it a plain sequence of layers, or attack it without certifying it"
        )


class _Tracer(Tracer):
    """Reports the layer in which tracing failed."""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except ModelError:
            raise
        except Exception as error:  # foreign code may fail in any way on a symbol in place of an image
            raise _refusal(self.path_of_module(m), type(m).__name__, _line(error)) from error


def _trace(network: nn.Module) -> fx.GraphModule:
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            why = "TorchScript is code without layers; give the network that it was made from"
            raise _refusal(path, type(module).__name__, why)
    try:
        return _Tracer().traced(network)
    except ModelError:
        raise
    except Exception as error:  # likewise
        raise _refusal("", type(network).__name__, _line(error)) from error


def _refusal(path: str, kind: str, reason: str) -> ModelError:
    layer = f"layer {path!r} ({kind})" if path else f"the network ({kind})"
    return ModelError(f"{layer} cannot be bounded: {reason}; {READABLE}")


def _line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"its code cannot be traced ({text})"


class _Reader:
    """Reads a traced network.

    Args:
        traced: the network.
        reading: collects the nodes.
    """

    def __init__(self, traced: fx.GraphModule, reading: Reading) -> None:
        self.traced, self.reading = traced, reading

    def run(self, images: Value) -> Any:
        """The network's output for ``images``: a `Value`, if it can be bounded."""
        known: dict[fx.Node, Any] = {}
        for node in self.traced.graph.nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            if node.op == "placeholder":
                known[node] = images
            elif node.op == "get_attr":
                known[node] = _attribute(self.traced, str(node.target))
            elif node.op == "output":
                return args[0]
            else:
                known[node] = self._call(node, args, kwargs)
        return None

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        owner, kind = _place(node, layer)
        if not _depends((args, kwargs)):
            return self._computed(node, layer, args, kwargs)
        try:
            if layer is None:
                reader = CALLS.get(node.target)
                if reader is None:
                    raise Unreadable("this function is not supported")
                return reader(self.reading, owner or kind, *args, **kwargs)
            found = next((MODULES[known] for known in type(layer).__mro__ if known in MODULES), None)
            if found is None:
                raise Unreadable("this type of layer is not supported")
            return found(self.reading, owner, layer, *args, **kwargs)
        except Unreadable as reason:
            raise _refusal(owner, kind, str(reason)) from reason
        except TypeError as error:
            raise _refusal(owner, kind, f"it is called in an unusual way ({_line(error)})") from error

    def _computed(
        self, node: fx.Node, layer: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The result of a call on constants."""
        if layer is not None:
            return layer(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _depends(something: Any) -> bool:
    """Whether a `Value` is anywhere inside."""
    if isinstance(something, dict):
        return any(map(_depends, something.values()))
    if isinstance(something, tuple | list):
        return any(map(_depends, something))
    return isinstance(something, Value)


def _attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _place(node: fx.Node, layer: nn.Module | None) -> tuple[str, str]:
    """The qualified name of a layer, or of the one that calls a function; and its type."""
    if layer is not None:
        return str(node.target), type(layer).__name__
    stack = node.meta.get("nn_module_stack") or {}
    owner = list(stack)[-1] if stack else ""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return owner, f"function {name}"
