"""The translation-invariant method."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.parts.momentum import Momentum, MomentumConfig, MomentumState

DEVIATIONS = 3.0
"""Standard deviations of the Gaussian from its centre to its edge."""


@attack(
    "ti-fgsm",
    summary="momentum on blurred gradients, for models with other attention regions",
    source="Dong et al. 2019",
)
class TIFGSM(Momentum):
    """Dong et al., CVPR 2019, section 3.3: blurring a gradient approximates the average over translations
    of the image."""

    class Config(MomentumConfig):
        """Parameters."""

        kernel: int = Field(15, ge=1)
        """Pixels across the Gaussian; at most half the side of the image."""

    config: Config

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        gradient = super()._gradient(state, oracle)
        height, width = (blur(side, self.config.kernel, gradient.device) for side in gradient.shape[2:])
        return height @ gradient @ width


def blur(side: int, kernel: int, device: torch.device | str = "cpu") -> Tensor:
    """(side, side) symmetric matrix that blurs a row of pixels by a Gaussian; zero beyond the edge."""
    reach = max(min(kernel, side // 2) - 1, 0) // 2
    place = torch.arange(side, device=device)
    apart = (place[:, None] - place).abs()
    weight = torch.exp(-0.5 * (DEVIATIONS / max(reach, 1) * apart) ** 2) * (apart <= reach)
    return weight / weight[side // 2].sum()
