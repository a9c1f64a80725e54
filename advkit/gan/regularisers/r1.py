"""Zero-centred gradient penalty on real images."""

from __future__ import annotations

from torch import Tensor

from advkit.gan.critic import Critic
from advkit.gan.loss import Judgement
from advkit.gan.regulariser import Regulariser, regulariser, squared_gradient


@regulariser(
    "r1",
    summary="half the squared gradient of the discriminator at real images",
    source="Mescheder et al. 2018, eq. 9",
)
class R1(Regulariser):
    """E |grad D(x)|^2 / 2."""

    through = ("real",)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement, noise: Tensor) -> Tensor:
        """The term, without its weight."""
        return squared_gradient(judged.real, real).mean() / 2
