"""Penalties on the gradient of a discriminator with respect to its images."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from advkit.gan.critic import Critic
from advkit.gan.loss import Judgement
from advkit.gan.regulariser import Regulariser, Schedule, regulariser, squared_gradient


@regulariser(
    "r1",
    summary="half the squared gradient of the discriminator at real images",
    source="Mescheder et al. 2018, eq. 9",
)
class R1(Regulariser):
    """E |grad D(x)|^2 / 2."""

    through = ("real",)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement, noise: Tensor) -> Tensor:
        """The term, without its weight."""
        return squared_gradient(judged.real, real).mean() / 2


@regulariser(
    "r2",
    summary="half the squared gradient of the discriminator at generated images",
    source="Mescheder et al. 2018, eq. 10",
)
class R2(Regulariser):
    """E |grad D(G(z))|^2 / 2."""

    through = ("fake",)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement, noise: Tensor) -> Tensor:
        """The term, without its weight."""
        return squared_gradient(judged.fake, fake).mean() / 2


@regulariser(
    "gradient-penalty",
    summary="squared distance of the gradient's norm from 1, between pairs of real and generated images",
    source="Gulrajani et al. 2017, eq. 3",
)
class GradientPenalty(Regulariser):
    """E (|grad D(x')| - 1)^2 at random places x' between a real and a generated image."""

    class Config(Schedule):
        weight: float = Field(10.0, gt=0)
        """Factor of the term."""

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement, noise: Tensor) -> Tensor:
        """The term, without its weight."""
        between = real.detach().lerp(fake.detach().to(real.dtype), noise.view(-1, 1, 1, 1))
        between.requires_grad_(True)
        norm = (squared_gradient(critic(between), between) + 1e-12).sqrt()
        return (norm - 1).square().mean()
