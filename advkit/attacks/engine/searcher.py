"""The copy of a model that attacks search on: the same function, in the form that runs fastest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from advkit.attacks.attack import Access
from advkit.attacks.engine.rewrite import rewritten
from advkit.core.config import Precision
from advkit.core.device import arithmetic


class Searcher(nn.Module):
    """A frozen copy in another arithmetic and memory format; images in and logits out are float32.

    In bfloat16, convolutions compute in it, which take nearly all of the time. The other layers do not:
    logits rounded to 8 bits are so coarse that a search by small steps sees no difference.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        dtype: arithmetic of the copy's convolutions.
        hidden: linear layers before the last compute in it too, where their order is known (the model has
            been traced). Gradients bear that; scores to be compared do not.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, hidden: bool = False) -> None:
        super().__init__()
        twin = copy.deepcopy(model).to(torch.float32).to(memory_format=torch.channels_last)
        self.model = twin.requires_grad_(False)
        self.dtype = dtype
        if dtype != torch.float32:
            lower = _hidden(twin) if hidden else []
            for module in twin.modules():
                if isinstance(module, _CONVOLUTIONS) or module in lower:
                    module.to(dtype).register_forward_pre_hook(_casting(dtype))
                elif next(module.parameters(recurse=False), None) is not None and not isinstance(
                    module, _EITHER
                ):
                    module.register_forward_pre_hook(_casting(torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(R, K) float32 logits."""
        logits: Tensor = self.model(x.contiguous(memory_format=torch.channels_last))
        return logits.float()


_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_EITHER = (nn.BatchNorm2d,)
"""Layers that take either type of input with float32 parameters, and give back what they took."""


def _hidden(model: nn.Module) -> list[nn.Module]:
    """The linear layers before the last one of a traced model."""
    if not isinstance(model, GraphModule):
        return []
    called = [model.get_submodule(str(node.target)) for node in model.graph.nodes if node.op == "call_module"]
    linear = [module for module in called if isinstance(module, nn.Linear)]
    return [module for module in linear if module is not linear[-1]]


def _casting(dtype: torch.dtype) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def cast(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.to(dtype) if isinstance(value, Tensor) else value for value in given)

    return cast


def searcher(model: nn.Module, precision: Precision, images: Tensor, access: Access) -> nn.Module:
    """A `Searcher`, or the model itself where it cannot be copied or its copy answers otherwise.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        precision: arithmetic to search in.
        images: (N, C, H, W) a few images on the model's device to try it on.
        access: what the search will ask for.
    """
    with torch.no_grad():
        meant = model(images).float()
    scale = meant.abs().max()
    leaner = _rewritten(model, images, meant)
    for name in dict.fromkeys((arithmetic(precision, images.device), "float32")):
        dtype = getattr(torch, name)
        try:
            twin = Searcher(leaner, dtype, hidden=access == "gradients")
            with torch.no_grad():
                said = twin(images)
        except Exception:  # a foreign network may resist in any way; the model itself always serves
            continue
        if (said - meant).abs().max() <= (0.1 if dtype == torch.bfloat16 else 1e-3) * scale:
            return twin
    return model


def _rewritten(model: nn.Module, images: Tensor, meant: Tensor) -> nn.Module:
    """`rewritten`, if that has the same answers and gradients, and the model answers alike when asked twice;
    else the model."""
    try:
        twin = rewritten(model)
        said, slope = _answers(twin, images)
        again, meant_slope = _answers(model, images)
    except Exception:  # likewise
        return model
    same = torch.equal(again, meant) and _near(said, meant) and _near(slope, meant_slope)
    return twin if same else model


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, gradient of the sum of their squares to the images)"""
    x = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(x).float()
        (slope,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), slope


def _near(said: Tensor, meant: Tensor) -> bool:
    return bool((said - meant).abs().max() <= 1e-3 * meant.abs().max())
