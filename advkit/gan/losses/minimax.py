"""The min-max game of the first GAN."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from advkit.core.config import StrictModel
from advkit.gan.critic import Critic
from advkit.gan.loss import GanLoss, Judgement, gan_loss


@gan_loss(
    "minimax",
    summary="binary cross-entropy; the generator maximises the discriminator's loss (saturates)",
    source="Goodfellow et al. 2014, eq. 1",
)
class Minimax(GanLoss):
    """D minimises -log D(x) - log(1 - D(G(z))); G minimises log(1 - D(G(z)))."""

    class Config(StrictModel):
        smoothing: float = Field(0.0, ge=0, lt=0.5)
        """How far below 1 the label of real images is: one-sided smoothing (Salimans et al. 2016: 0.1)."""

    config: Config

    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """The mean of the binary cross-entropies of both halves, ln 2 for a coin that knows nothing."""
        on_real, on_fake = critic.both(real, fake)
        smoothed = self.config.smoothing * on_real.mean()
        loss = (softplus(-on_real).mean() + smoothed + softplus(on_fake).mean()) / 2
        return Judgement(loss, on_real, on_fake)

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """log(1 - D(G(z))), with D the logistic function of the logit."""
        return -softplus(critics["discriminator"](fake)).mean()
