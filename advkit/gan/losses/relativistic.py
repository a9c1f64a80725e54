"""Relativistic pairing: is this real image more real than this generated one?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advkit.gan.critic import Critic
from advkit.gan.loss import GanLoss, Judgement, gan_loss


@gan_loss(
    "relativistic",
    summary="softplus of the difference within pairs of a real and a generated image; with R1 and R2",
    source="Jolicoeur-Martineau 2019; Huang et al. 2024 (R3GAN), eq. 2",
    aliases=("r3gan", "rpgan"),
)
class Relativistic(GanLoss):
    """A generator cannot win by covering one mode: it must be as real as each of the others.

    The verdicts are those of pairs, so both halves are right or wrong together.
    """

    regularisers = {"r1": {}, "r2": {}}
    fresh = True

    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """softplus(D(G(z)) - D(x)), ln 2 for one that knows nothing."""
        on_real, on_fake = critic.both(real, fake)
        lead = on_real - on_fake
        return Judgement(softplus(-lead).mean(), lead, -lead)

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """softplus(D(x) - D(G(z)))."""
        critic = critics["discriminator"]
        with torch.no_grad():  # nothing of it reaches the generator
            on_real = critic(real)
        return softplus(on_real - critic(fake)).mean()
