"""The network that makes adversarial examples: an encoder, residual blocks and a decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.card import Shape
from advkit.models.layers import growth, halvings, refuse_small, transposed
from advkit.models.network import PerturbationGenerator, architecture

HALVINGS = 2
"""How often an image is halved at most, as published; a small one is halved less often."""


def _residual(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )


@architecture(
    "advgan-generator",
    role="perturbation-generator",
    summary="strided convolutions down, residual blocks, transposed convolutions up; batch norm, ReLU, tanh",
    source="Xiao et al., Generating Adversarial Examples with Adversarial Networks, IJCAI 2018",
)
class AdvGanGenerator(PerturbationGenerator):
    """8, 16, 32 channels, four residual blocks of 32, and back. On 28x28 grey images: 86,089 parameters.

    Batch norm replaces the paper's instance norm, which leaves little of the small maps that small
    images end in.
    """

    class Config(StrictModel):
        width: int = Field(8, ge=1)
        """Channels of the first convolution; every halving doubles them."""
        depth: int = Field(4, ge=0)
        """Residual blocks."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        refuse_small(shape)
        super().__init__(config, shape=shape)
        sizes = growth(shape, min(HALVINGS, halvings(shape)))
        widths = [config.width * 2**place for place in range(len(sizes))]
        down = [
            nn.Conv2d(shape[0], widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, 2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        up: list[nn.Module] = []
        for place in range(len(sizes) - 1):
            before, after = widths[-1 - place], widths[-2 - place]
            up += [
                transposed(before, after, 3, sizes[place], sizes[place + 1]),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.down = nn.Sequential(*down)
        self.blocks = nn.ModuleList(_residual(widths[-1]) for _ in range(config.depth))
        self.up = nn.Sequential(*up, nn.Conv2d(widths[0], shape[0], 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Directions in [-1, 1]."""
        hidden = self.down(2 * x - 1)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return torch.tanh(self.up(hidden))
