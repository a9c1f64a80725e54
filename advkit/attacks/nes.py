"""Natural evolution strategies: projected gradient steps on estimates from Gaussian directions."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import attack
from advkit.attacks.parts.antithetic import Antithetic, PairConfig
from advkit.core import rng
from advkit.core.config import Fraction


@attack(
    "nes", summary="projected steps on gradients estimated from Gaussian pairs", source="Ilyas et al. 2018"
)
class NES(Antithetic):
    """Ilyas, Engstrom, Athalye and Lin, "Black-box Adversarial Attacks with Limited Queries and Information",
    ICML 2018: steps along the sign (linf) or the direction (l2) of a running mean of the estimates.
    """

    class Config(PairConfig):
        """Parameters."""

        sigma: Fraction = Field(0.01, gt=0)
        """Standard deviation of the points around the current one, in units of pixels."""
        step_size: Fraction | None = Field(None, gt=0)
        """In units of pixels (l2: length of a step); by default a fifth of eps."""
        momentum: float = Field(0.9, ge=0, lt=1)
        """Share of the running mean that is kept from estimate to estimate."""

    config: Config

    @property
    def sigma(self) -> float:
        """As configured."""
        return self.config.sigma

    def draw(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Gaussian."""
        return rng.normal(key, shape)

    def ascend(self, centre: Tensor, estimate: Tensor, moments: Tensor, number: Tensor) -> Tensor:
        """One step of fixed size."""
        mean = moments[:, 0].mul_(self.config.momentum).add_(estimate, alpha=1 - self.config.momentum)
        size = self.config.step_size or self.threat.eps / 5
        return centre.add(self.threat.ascent(mean), alpha=size)
