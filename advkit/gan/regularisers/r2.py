"""Zero-centred gradient penalty on generated images."""

from __future__ import annotations

from torch import Tensor

from advkit.gan.critic import Critic
from advkit.gan.loss import Judgement
from advkit.gan.regulariser import Regulariser, regulariser, squared_gradient


@regulariser(
    "r2",
    summary="half the squared gradient of the discriminator at generated images",
    source="Mescheder et al. 2018, eq. 10",
)
class R2(Regulariser):
    """E |grad D(G(z))|^2 / 2."""

    through = ("fake",)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement, noise: Tensor) -> Tensor:
        """The term, without its weight."""
        return squared_gradient(judged.fake, fake).mean() / 2
