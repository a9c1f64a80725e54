"""Adversarial weight perturbation (AWP)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advkit.core import distributed

TINY = 1e-12
"""Least length of a gradient, against division by nothing."""


@contextmanager
def moved(
    model: nn.Module, loss: Callable[[], tuple[Tensor, Tensor]], size: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Moves each layer's weights by ``size`` times their own norm along the gradient of ``loss``;
    afterwards they are what they were, bit for bit (Wu et al., NeurIPS 2020, section 4, one step).

    Weights are what has two dimensions or more: biases and normalisation stay. Running statistics are moved
    by the pass inside alone, and no parameter's own ``grad`` is touched. Where several processes share the
    batch, the gradient is the mean of theirs.

    Args:
        model: whose weights.
        loss: (what to climb, logits), computed anew at every call.
        size: of the step, relative to the length of each layer's weights.

    Yields:
        What ``loss`` gave at the weights as they were, cut off from the graph.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() > 1]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    value, logits = loss()
    slopes = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    distributed.average(slopes)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for buffer, kept in buffers:
            buffer.copy_(kept)
        for weight, slope in zip(weights, slopes, strict=True):
            weight.add_(slope * (size * weight.norm() / slope.norm().clamp(min=TINY)))
    try:
        yield value.detach(), logits.detach()
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)
