"""The non-saturating game: the same discriminator, a generator whose gradient does not vanish."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import softplus

from advkit.gan.critic import Critic
from advkit.gan.loss import gan_loss
from advkit.gan.losses.minimax import Minimax


@gan_loss(
    "non-saturating",
    summary="binary cross-entropy; the generator minimises -log D(G(z))",
    source="Goodfellow et al. 2014, section 3",
    aliases=("bce",),
)
class NonSaturating(Minimax):
    """D as in the min-max game; G minimises -log D(G(z))."""

    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """Binary cross-entropy of the generated images against the label "real"."""
        return softplus(-critics["discriminator"](fake)).mean()
