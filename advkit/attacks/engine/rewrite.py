"""Rewrites a network's graph to the same function with less memory traffic."""

from __future__ import annotations

import copy
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from advkit.models.trace import Tracer

_RELU = (functional.relu, torch.relu, "relu", nn.ReLU)
_MAX_POOL = (functional.max_pool2d, torch.max_pool2d, nn.MaxPool2d)


def rewritten(model: nn.Module) -> GraphModule:
    """A copy with batch norms folded into convolutions, and faster max pooling, moved before ReLU.

    Tracing loses or refuses Python code other than calls of layers and functions (`torch.no_grad`, a branch,
    a random number), so compare the copy with the model before use.

    Args:
        model: in eval mode.

    Raises:
        Exception: of any kind, where the network cannot be traced.
    """
    traced = Tracer().traced(copy.deepcopy(model))
    for node in list(traced.graph.nodes):
        if _is(traced, node, (nn.BatchNorm2d,)):
            _fold(traced, node)
        elif _is(traced, node, _MAX_POOL) and not node.kwargs.get("return_indices"):
            _pool_first(traced, node)
            _tile(traced, node)
    traced.graph.lint()
    traced.recompile()
    return traced


def _is(traced: GraphModule, node: Node, kinds: tuple[object, ...]) -> bool:
    """Whether a node calls one of these functions, methods (by name) or layers."""
    if node.op != "call_module":
        return node.target in kinds
    return type(traced.get_submodule(str(node.target))) in kinds


def _fold(traced: GraphModule, norm: Node) -> None:
    """Folds the batch norm ``norm`` into the convolution whose only user it is."""
    convolution = norm.args[0]
    if not isinstance(convolution, Node) or not _is(traced, convolution, (nn.Conv2d,)):
        return
    name = str(convolution.target)
    calls = [node for node in traced.graph.nodes if node.op == "call_module" and node.target == name]
    batch_norm = traced.get_submodule(str(norm.target))
    if len(convolution.users) > 1 or len(calls) > 1 or batch_norm.running_mean is None:
        return
    parent, _, last = name.rpartition(".")
    folded = fuse_conv_bn_eval(traced.get_submodule(name), batch_norm)  # type: ignore[arg-type, type-var]
    setattr(traced.get_submodule(parent), last, folded)
    norm.replace_all_uses_with(convolution)
    traced.graph.erase_node(norm)


def _pool_first(traced: GraphModule, pool: Node) -> None:
    """Swaps the max pooling ``pool`` and the ReLU whose only user it is: ReLU is monotone, so that the
    maximum is the same, and it then has fewer inputs."""
    relu = pool.args[0]
    if not isinstance(relu, Node) or len(relu.users) > 1 or not _is(traced, relu, _RELU):
        return
    before = relu.args[0]
    if not isinstance(before, Node) or len(before.users) > 1:  # in place, it may change the input of others
        return
    pool.replace_input_with(relu, before)
    pool.replace_all_uses_with(relu)
    relu.replace_input_with(before, pool)
    pool.append(relu)


class _Tiles(nn.Module):
    """Max pooling of windows that do not overlap.

    Without gradients, which need the index of each maximum, whole rows and columns are compared: on the CPU
    2 to 4 times as fast as a loop over windows.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return functional.max_pool2d(x, self.size)
        (tall, wide), (height, width) = self.size, x.shape[2:]
        last_row, last_column = height // tall * tall, width // wide * wide
        x = reduce(torch.maximum, [x[:, :, i:last_row:tall] for i in range(tall)])
        return reduce(torch.maximum, [x[:, :, :, i:last_column:wide] for i in range(wide)])


def _tile(traced: GraphModule, pool: Node) -> None:
    """Replaces the max pooling ``pool`` by `_Tiles`, if its windows tile the image."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    if pool.op == "call_module":
        given = {name: getattr(traced.get_submodule(str(pool.target)), name) for name in names}
    else:
        given = dict(zip(names, pool.args[1:], strict=False)) | dict(pool.kwargs)
    size, padding, dilation = (
        _pair(given.get(name, other)) for name, other in (("kernel_size", 1), ("padding", 0), ("dilation", 1))
    )
    stride = _pair(given.get("stride") or size)
    if (stride, padding, dilation) != (size, (0, 0), (1, 1)) or given.get("ceil_mode"):
        return
    name = f"tiles_{pool.name}"
    traced.add_submodule(name, _Tiles(size))
    with traced.graph.inserting_before(pool):
        tiles = traced.graph.call_module(name, (pool.args[0],))
    pool.replace_all_uses_with(tiles)
    traced.graph.erase_node(pool)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
