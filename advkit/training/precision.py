"""A network whose layers compute in bfloat16, over weights in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bfloat16(nn.Module):
    """Images to float32 logits, each pass under autocast of its own.

    Of its own, because autocast keeps its bfloat16 copies of the weights until it ends: a copy made for the
    attacker, who wants no gradients of weights, or before weights are moved, would serve the update too.

    Args:
        model: images in [0, 1] to logits; its parameters stay what they are.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits, from which losses are computed in float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()
