"""The hinge loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import relu

from advkit.gan.critic import Critic
from advkit.gan.loss import GanLoss, Judgement, gan_loss


@gan_loss(
    "hinge",
    summary="hinge loss: the discriminator's outputs are pushed beyond 1 and -1; the generator raises them",
    source="Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17",
)
class Hinge(GanLoss):
    """D minimises max(0, 1 - D(x)) + max(0, 1 + D(G(z))); G minimises -D(G(z))."""

    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """The sum of both hinges, 2 for one that knows nothing."""
        on_real, on_fake = critic.both(real, fake)
        return Judgement(relu(1 - on_real).mean() + relu(1 + on_fake).mean(), on_real, on_fake)

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """Minus the mean answer."""
        return -critics["discriminator"](fake).mean()
