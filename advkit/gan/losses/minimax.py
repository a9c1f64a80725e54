"""The min-max game of the first GAN."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import softplus

from advkit.gan.loss import GanLoss, Judgement, gan_loss
from advkit.models.network import Discriminator


@gan_loss(
    "minimax",
    summary="binary cross-entropy; the generator maximises the discriminator's loss (saturates)",
    source="Goodfellow et al. 2014, eq. 1",
)
class Minimax(GanLoss):
    """D minimises -log D(x) - log(1 - D(G(z))); G minimises log(1 - D(G(z)))."""

    def judge(self, opponent: str, network: Discriminator, real: Tensor, fake: Tensor) -> Judgement:
        """The mean of the binary cross-entropies of both halves, ln 2 for a coin that knows nothing."""
        on_real, on_fake = network(real), network(fake)
        loss = (softplus(-on_real).mean() + softplus(on_fake).mean()) / 2
        return Judgement(loss, on_real, on_fake)

    def generate(self, networks: Mapping[str, Discriminator], fake: Tensor, real: Tensor) -> Tensor:
        """log(1 - D(G(z))), with D the logistic function of the logit."""
        return -softplus(networks["discriminator"](fake)).mean()
