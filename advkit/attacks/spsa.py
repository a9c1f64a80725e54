"""Simultaneous perturbation: Adam on gradients estimated from random signs."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import attack
from advkit.attacks.engine.record import column
from advkit.attacks.parts.antithetic import Antithetic, PairConfig
from advkit.core import rng
from advkit.core.config import Fraction

BETAS = (0.9, 0.999)


@attack("spsa", summary="Adam on gradients estimated from pairs of random signs", source="Uesato et al. 2018")
class SPSA(Antithetic):
    """Uesato, O'Donoghue, van den Oord and Kohli, "Adversarial Risk and the Dangers of Evaluating Against
    Weak Attacks", ICML 2018.
    """

    class Config(PairConfig):
        """Parameters."""

        samples: int = Field(20, ge=2, multiple_of=2)
        """Points per estimate of the gradient, two for each direction."""
        sigma: Fraction = Field(0.01, gt=0)
        """Distance of each pixel of a point from the current one, in units of pixels."""
        step_size: Fraction | None = Field(None, gt=0)
        """Adam's, in units of pixels; by default a fifth of eps (l2: divided by the root of the
        number of pixels)."""

    config: Config
    moments: ClassVar[int] = 2

    @property
    def sigma(self) -> float:
        """As configured."""
        return self.config.sigma

    def draw(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Minus or plus one."""
        return rng.signs(key, shape)

    def ascend(self, centre: Tensor, estimate: Tensor, moments: Tensor, number: Tensor) -> Tensor:
        """One step of Adam."""
        first, second = BETAS
        mean = moments[:, 0].mul_(first).add_(estimate, alpha=1 - first)
        spread = moments[:, 1].mul_(second).addcmul_(estimate, estimate, value=1 - second)
        mean = mean / column(1 - first**number, mean)
        spread = spread / column(1 - second**number, mean)
        size = self.config.step_size or self.threat.eps / 5
        if self.config.step_size is None and self.threat.norm == "l2":
            size /= centre[0].numel() ** 0.5  # Adam moves every pixel by about its step size
        return centre.addcdiv(mean, spread.sqrt_().add_(1e-12), value=size)
