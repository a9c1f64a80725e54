"""Discriminators with noise before every layer (Salimans et al., "Improved Techniques for Training GANs",
NeurIPS 2016, section 5): what noisy-mlp and noisy-conv have in common."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import StrictModel
from advkit.models.network import Discriminator
from advkit.models.normalised import NormalisedLinear


class Noise(nn.Module):
    """Adds N(0, deviation^2) in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself in eval mode."""
        return torch.add(x, torch.randn_like(x), alpha=self.deviation) if self.training else x


class NoisyDiscriminator(Discriminator):
    """A ``trunk`` whose output is the features, under a weight-normalised head."""

    class Config(StrictModel):
        """Parameters."""

        input_noise: float = Field(0.3, ge=0)
        """Standard deviation of the noise on pixels."""
        noise: float = Field(0.5, ge=0)
        """Standard deviation of the noise on inputs of dense layers behind it, which begin near 1."""

    config: Config
    trunk: nn.Module

    def new_head(self, outputs: int) -> nn.Module:
        """A weight-normalised layer under noise, too."""
        return nn.Sequential(
            Noise(self.config.noise), NormalisedLinear(self.feature_dim, outputs, fixed=False)
        )

    def features(self, x: Tensor) -> Tensor:
        """(N, feature_dim): the last hidden layer, before its noise."""
        features: Tensor = self.trunk(x)
        return features
