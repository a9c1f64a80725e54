"""The diverse inputs iterative method."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.parts.momentum import Momentum, MomentumConfig, MomentumState
from advkit.core import rng


@attack(
    "di-fgsm",
    summary="momentum on gradients through random shrinking and padding",
    source="Xie et al. 2019",
)
class DIFGSM(Momentum):
    """Xie et al., CVPR 2019, section 3.3, with momentum; the padded image has the size of the original.

    The model does not evaluate the points themselves, so only the last one counts.
    """

    class Config(MomentumConfig):
        """Parameters."""

        probability: float = Field(0.5, ge=0, le=1)
        """Probability of shrinking an image before a gradient is taken."""
        smallest: float = Field(0.9, gt=0, le=1)
        """Least side of a shrunk image, as a share of the original's."""
        restarts: int = Field(1, ge=1)
        """Random sequences per image; later ones only where the earlier failed."""

    config: Config

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        rows, config = state.rows, self.config
        draws = rng.uniform(rng.step(rows.key, state.iteration), (4,))
        scale = config.smallest + (1 - config.smallest) * draws[:, 1]
        scale = torch.where(draws[:, 0] < config.probability, scale, 1.0)
        height, width = rows.x0.shape[2:]
        down = shrinking(height, scale, draws[:, 2])[:, None]
        across = shrinking(width, scale, draws[:, 3])[:, None].mT
        return oracle.loss_and_grad(state.x, rows, self._loss, through=lambda x: down @ x @ across)[1]


def shrinking(side: int, scale: Tensor, place: Tensor) -> Tensor:
    """(R, side, side) matrices that shrink a row of pixels, with linear interpolation, and pad it with zeros.

    Args:
        side: pixels.
        scale: (R,) shares of them that are left, rounded to whole pixels.
        place: (R,) in [0, 1): position of the shrunk row.
    """
    size = (scale * side).round().clamp(1, side)
    offset = (place * (side - size + 1)).floor()
    pixel = torch.arange(side, device=scale.device)
    target = pixel - offset[:, None]  # the position of a pixel in the shrunk row
    source = ((target + 0.5) * (side / size)[:, None] - 0.5).clamp(0, side - 1)
    weight = (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)
    return weight * ((target >= 0) & (target < size[:, None]))[:, :, None]
