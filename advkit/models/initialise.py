"""Initial weights other than PyTorch's own."""

from __future__ import annotations

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
