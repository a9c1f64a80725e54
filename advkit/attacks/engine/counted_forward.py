"""A counted forward pass for code that differentiates by itself; parameters get no gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from advkit.models.blame import backward_pass


class _CountedForward(torch.autograd.Function):
    """Keeps the graph through the model inside, where only the images require gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: nn.Module, count: Callable[..., None]) -> Tensor:
        ctx.count = count
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_(True)
            ctx.logits = model(ctx.x).float()
        count(len(x), forwards=1)
        logits: Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.count(len(grad), backwards=1)
        with backward_pass():
            (gradient,) = torch.autograd.grad(
                ctx.logits, ctx.x, grad, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        return gradient, None, None


def counted_forward(model: nn.Module, x: Tensor, count: Callable[..., None]) -> Tensor:
    """(M, K) logits of the points ``x`` (M, C, H, W), differentiable with respect to them if they require it.

    Args:
        model: images in [0, 1] to logits; the gradients of its parameters are neither computed nor touched.
        count: called with ``(M, forwards=1)`` now, and ``(M, backwards=1)`` at every backward pass.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _CountedForward.apply(x, model, count)  # type: ignore[no-any-return]
    with torch.no_grad():
        logits: Tensor = model(x).float()
    count(len(x), forwards=1)
    return logits
