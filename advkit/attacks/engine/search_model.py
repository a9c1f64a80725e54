"""The search model: a copy of the model for attacks to search on, the same function in its fastest form."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from advkit.attacks.attack import Access
from advkit.attacks.engine.rewrite import rewritten
from advkit.core.config import Precision
from advkit.core.device import arithmetic
from advkit.models.black_box import black_box

LOG = logging.getLogger(__name__)


class SearchModel(nn.Module):
    """A frozen copy in another arithmetic and memory format; images in and logits out are float32.

    With bfloat16, only convolutions use it, which take nearly all of the time. The other layers stay in
    float32: logits rounded to 8 bits are too coarse for a search by small steps.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        dtype: arithmetic of the copy's convolutions.
        hidden: linear layers before the last use it too, where their order is known (the model has been
            traced). Gradients tolerate that; comparisons of scores do not.
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
"""Layers with float32 parameters that accept either type of input and return the same."""


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


def search_model(model: nn.Module, precision: Precision, images: Tensor, access: Access) -> nn.Module:
    """A `SearchModel`, or the model itself: a black box, or where it cannot be copied or its copy has
    other outputs.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        images: (N, C, H, W) a few images on the model's device to compare both on.
    """
    if black_box(model) is not None:
        return model
    with torch.no_grad():
        expected = model(images).float()
    scale = expected.abs().max()
    faster = _rewritten(model, images, expected)
    for name in dict.fromkeys((arithmetic(precision, images.device), "float32")):
        dtype = getattr(torch, name)
        try:
            twin = SearchModel(faster, dtype, hidden=access == "gradients")
            with torch.no_grad():
                actual = twin(images)
        except Exception:  # a foreign network may fail in any way; the model itself always works
            LOG.debug("no search model in %s", name, exc_info=True)
            continue
        if (actual - expected).abs().max() <= (0.1 if dtype == torch.bfloat16 else 1e-3) * scale:
            return twin
    return model


def _rewritten(model: nn.Module, images: Tensor, expected: Tensor) -> nn.Module:
    """`rewritten` if the model is deterministic and outputs and gradients are the same; else the model."""
    try:
        twin = rewritten(model)
        actual, gradient = _outputs(twin, images)
        again, expected_gradient = _outputs(model, images)
    except Exception:  # as above
        LOG.debug("the search model is not rewritten", exc_info=True)
        return model
    same = torch.equal(again, expected) and (actual - expected).abs().max() <= 1e-3 * expected.abs().max()
    return twin if same and _error(gradient, expected_gradient) <= 1e-2 else model


def _outputs(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, gradient of the sum of their squares to the images)"""
    x = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(x).float()
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


def _error(gradient: Tensor, expected: Tensor) -> float:
    """Median over the images of the relative error of their gradients: in a large network some ReLU is so
    near 0 on one image or another that rounding turns it."""
    size = torch.linalg.vector_norm(expected.flatten(1), dim=1).clamp(min=1e-30)
    return float((torch.linalg.vector_norm((gradient - expected).flatten(1), dim=1) / size).median())
