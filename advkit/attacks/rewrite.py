"""A network's graph rewritten to the same function with less traffic through memory."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.fx import GraphModule, Node
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

_RELU = (functional.relu, torch.relu, "relu", nn.ReLU)
_MAX_POOL = (functional.max_pool2d, torch.max_pool2d, nn.MaxPool2d)


def rewritten(model: nn.Module) -> GraphModule:
    """A copy with batch norms inside the convolutions before them, and max pooling before ReLU.

    What the Python code of a network does besides calling layers and functions (`torch.no_grad`, a branch, a
    number drawn) is lost or refused in tracing, so compare the copy with the model before use.

    Args:
        model: in eval mode.

    Raises:
        Exception: of any kind, where the network cannot be traced.
    """
    traced = fx.symbolic_trace(copy.deepcopy(model))
    for node in list(traced.graph.nodes):
        if _is(traced, node, (nn.BatchNorm2d,)):
            _fold(traced, node)
        elif _is(traced, node, _MAX_POOL) and not node.kwargs.get("return_indices"):
            _pool_first(traced, node)
    traced.graph.lint()
    traced.recompile()
    return traced


def _is(traced: GraphModule, node: Node, kinds: tuple[object, ...]) -> bool:
    """Whether a node calls one of these functions, methods (by name) or layers."""
    if node.op != "call_module":
        return node.target in kinds
    return type(traced.get_submodule(str(node.target))) in kinds


def _fold(traced: GraphModule, norm: Node) -> None:
    """The batch norm ``norm`` into the convolution whose only reader it is."""
    convolution = norm.args[0]
    if not isinstance(convolution, Node) or not _is(traced, convolution, (nn.Conv2d,)):
        return
    name = str(convolution.target)
    calls = [node for node in traced.graph.nodes if node.op == "call_module" and node.target == name]
    batch_norm = traced.get_submodule(str(norm.target))
    if len(convolution.users) > 1 or len(calls) > 1 or batch_norm.running_mean is None:
        return
    traced.set_submodule(name, fuse_conv_bn_eval(traced.get_submodule(name), batch_norm))  # type: ignore[arg-type, type-var]
    norm.replace_all_uses_with(convolution)
    traced.graph.erase_node(norm)


def _pool_first(traced: GraphModule, pool: Node) -> None:
    """Swaps the max pooling ``pool`` and the ReLU whose only reader it is: ReLU never changes the order of
    values, so that the largest is the same, and there are fewer of them."""
    relu = pool.args[0]
    if not isinstance(relu, Node) or len(relu.users) > 1 or not _is(traced, relu, _RELU):
        return
    before = relu.args[0]
    if not isinstance(before, Node) or len(before.users) > 1:  # in place, it may change what others read
        return
    pool.replace_input_with(relu, before)
    pool.replace_all_uses_with(relu)
    relu.replace_input_with(before, pool)
    pool.append(relu)
