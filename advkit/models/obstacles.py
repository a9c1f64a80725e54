"""Which layers of a network let no gradient through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advkit.models.model import Model


def obstacles(model: Model, images: Tensor) -> list[str]:
    """Names of the layers that keep the shape and pass back nothing, on most images, of any gradient.

    One pass forward, and one each way of every such layer alone. A step outside of all layers is not seen.

    Args:
        model: a classifier, in eval mode.
        images: (N, C, H, W) on the model's device.
    """
    inputs: dict[str, tuple[nn.Module, Tensor]] = {}

    def noting(name: str) -> Any:
        def note(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            if len(given) == 1 and _alike(given[0], made):
                inputs[name] = layer, given[0].detach().clone()

        return note

    hooks = [
        layer.register_forward_hook(noting(name)) for name, layer in model.network.named_modules() if name
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = [name for name, (layer, x) in inputs.items() if _cuts(layer, x)]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def _alike(x: Any, y: Any) -> bool:
    return (
        isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and bool(x.is_floating_point())
    )


def _cuts(layer: nn.Module, x: Tensor) -> bool:
    x.requires_grad_(True)
    with torch.enable_grad():
        y = layer(x)
        if not y.requires_grad:
            return True
        weights = torch.linspace(-1.0, 2.0, y[0].numel(), device=y.device, dtype=y.dtype).view(y.shape[1:])
        (grad,) = torch.autograd.grad((y * weights).sum(), x, allow_unused=True, materialize_grads=True)
    silent = (grad.flatten(1) == 0).all(1)
    return bool(silent.float().mean() > 0.5)
