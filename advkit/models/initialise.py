"""Initial weights other than PyTorch's own."""

from __future__ import annotations

import math

from torch import nn


def glorot(network: nn.Module) -> None:
    """Uniform with variance 2 / (fan in + fan out), zero biases (Glorot and Bengio 2010), which the
    reference GANs start from; PyTorch's own start leaves a transposed convolution's output almost
    independent of the latent vector."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def for_intervals(network: nn.Module) -> None:
    """Normal with deviation sqrt(2 pi) / fan in: an interval comes out of a layer and its ReLU about as wide
    as it went in, where the usual starts widen it by the root of the fan in (Shi et al., NeurIPS 2021)."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, 0, math.sqrt(2 * math.pi) / module.weight[0].numel())
