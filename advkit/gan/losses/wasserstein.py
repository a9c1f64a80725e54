"""The Wasserstein distance, as a critic with bounded slope measures it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from advkit.gan.critic import Critic
from advkit.gan.loss import GanLoss, Judgement, gan_loss


@gan_loss(
    "wasserstein",
    summary="difference of the critic's mean outputs; with a gradient penalty (WGAN-GP)",
    source="Arjovsky et al. 2017, eq. 2; Gulrajani et al. 2017",
    aliases=("wgan-gp",),
)
class Wasserstein(GanLoss):
    """The paper gives the critic five updates for one of the generator (``discriminator_steps``).

    The answers have no zero of their own: verdicts are read off from the middle between both halves.
    """

    regularisers = {"gradient-penalty": {}}

    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """Minus the estimated distance."""
        on_real, on_fake = critic.both(real, fake)
        high, low = on_real.mean(), on_fake.mean()
        middle = ((high + low) / 2).detach()
        return Judgement(low - high, on_real - middle, on_fake - middle)

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """Minus the mean answer."""
        return -critics["discriminator"](fake).mean()
