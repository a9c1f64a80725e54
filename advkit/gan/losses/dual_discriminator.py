"""Three networks: a discriminator that rewards real images and an auxiliary one that rewards generated."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from advkit.core.config import StrictModel
from advkit.gan.critic import Critic
from advkit.gan.loss import GanLoss, Judgement, gan_loss


@gan_loss(
    "dual-discriminator",
    summary="two discriminators, which combine the KL and the reverse KL divergence (D2GAN)",
    source="Nguyen et al. 2017, eq. 1",
    aliases=("d2gan",),
)
class DualDiscriminator(GanLoss):
    """Scores are positive: D = softplus(logit). The discriminator D1 maximises
    alpha log D1(x) - D1(G(z)), the auxiliary D2 maximises beta log D2(G(z)) - D2(x), and the generator
    minimises the sum of both. At the optimum D1 = alpha p(x) / q(x) and D2 = beta q(x) / p(x) for densities
    p of real and q of generated images, so log(D1 / alpha) and log(beta / D2) are verdicts.
    """

    class Config(StrictModel):
        alpha: float = Field(0.2, gt=0, le=1)
        """Weight of the Kullback-Leibler divergence, which asks that every mode be covered."""
        beta: float = Field(0.1, gt=0, le=1)
        """Weight of the reverse divergence, which asks that no image be unlike the real ones."""

    config: Config
    discriminators = ("discriminator", "auxiliary")

    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """Minus what the discriminator maximises."""
        on_real, on_fake = (softplus(logits) for logits in critic.both(real, fake))
        if name == "discriminator":
            alpha = self.config.alpha
            loss = on_fake.mean() - alpha * _log(on_real).mean()
            return Judgement(loss, _log(on_real / alpha), _log(on_fake / alpha))
        beta = self.config.beta
        loss = on_real.mean() - beta * _log(on_fake).mean()
        return Judgement(loss, -_log(on_real / beta), -_log(on_fake / beta))

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """beta log D2(G(z)) - D1(G(z))."""
        rewarded = softplus(critics["discriminator"](fake)).mean()
        suspected = _log(softplus(critics["auxiliary"](fake))).mean()
        return self.config.beta * suspected - rewarded


def _log(score: Tensor) -> Tensor:
    return score.float().clamp_min(1e-8).log()
