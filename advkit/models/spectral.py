"""Spectral normalisation (Miyato et al., ICLR 2018): every layer divided by its largest singular value.

It bounds how fast a discriminator can change with its input. Training sees the divided weights; what is kept
is the plain network with these weights in it, so that any part of advkit can load it.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from advkit.core import rng
from advkit.models.model import evaluation_mode
from advkit.models.network import Network

N = TypeVar("N", bound=Network)
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)


def normalised(network: N) -> N:
    """``network`` itself, with spectral normalisation on each of its `LAYERS`.

    In train mode every forward pass refines the estimate of the singular values by one step; the vectors that
    it goes on from are in the state dict. They start from PyTorch's global generator: use `rng.scope` around
    it. A start near zero, as that of residual branches, does not outlive it.
    """
    for module in list(network.modules()):
        if isinstance(module, LAYERS) and not parametrize.is_parametrized(module, "weight"):
            parametrizations.spectral_norm(module)
    return network


@torch.no_grad()
def plain(network: N) -> N:
    """A new network without spectral normalisation that says what ``network`` says in eval mode.

    Its state dict has the names that its architecture has, and it is on the device and in the mode that
    ``network`` is in; that one is left as it is.
    """
    with rng.scope("cpu", 0, "build"):
        fresh = type(network)(network.config, shape=network.shape, classes=network.classes)
    own = network.state_dict()
    with evaluation_mode(network):  # where looking at a weight does not refine the estimate
        baked = {
            f"{prefix}.weight": module.weight
            for prefix, module in network.named_modules()
            if parametrize.is_parametrized(module, "weight")
        }
    fresh.load_state_dict({name: baked[name] if name in baked else own[name] for name in fresh.state_dict()})
    anything = next(network.parameters())
    return fresh.to(anything.device).train(network.training)
