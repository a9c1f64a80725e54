"""Least squares instead of cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from advkit.gan.critic import Critic
from advkit.gan.loss import GanLoss, Judgement, gan_loss


@gan_loss(
    "least-squares",
    summary="squared distance of the discriminator's outputs from 1 (real) and -1 (generated)",
    source="Mao et al. 2017, eq. 9, on the scale from -1 to 1",
    aliases=("lsgan",),
)
class LeastSquares(GanLoss):
    """Answers far on the right side of the boundary cost, too, so the generator is pulled toward it."""

    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """Half of the squared distances from 1 and -1."""
        on_real, on_fake = critic.both(real, fake)
        return Judgement(
            ((on_real - 1).square().mean() + (on_fake + 1).square().mean()) / 2, on_real, on_fake
        )

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """Half of the squared distance from 1."""
        return (critics["discriminator"](fake) - 1).square().mean() / 2
