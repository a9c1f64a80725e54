"""The losses of one discriminator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu, softplus

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
