"""The generator matches what the discriminator sees, not what it says."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from advkit.gan.critic import Critic
from advkit.gan.loss import gan_loss
from advkit.gan.losses.minimax import Minimax


@gan_loss(
    "feature-matching",
    summary="binary cross-entropy; the generator matches the mean features of real images",
    source="Salimans et al. 2016, section 3.1",
)
class FeatureMatching(Minimax):
    """D as in the min-max game; G minimises the squared distance between mean features."""

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """Mean over the features of (E f(x) - E f(G(z)))^2."""
        critic = critics["discriminator"]
        wanted = critic.features(real).mean(0).detach()
        return (critic.features(fake).mean(0) - wanted).square().mean()
