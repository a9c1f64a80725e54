"""The objective of a GAN: the losses of generator and discriminators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor

from advkit.core.config import StrictModel
from advkit.core.registry import Registry
from advkit.gan.critic import Critic

GAN_LOSSES: Registry[type[GanLoss]] = Registry("GAN loss", "advkit.gan.losses")


class Judgement(NamedTuple):
    """A discriminator's loss on one batch, and its scores (N,) of the real and of the generated images:
    positive means real. For most losses these are its logits."""

    loss: Tensor
    real: Tensor
    fake: Tensor


class GanLoss(ABC):
    """The losses of both sides.

    Attributes:
        discriminators: the networks that judge the generator, each of the pair's discriminator architecture
            and updated in this order before the generator; most losses have one.
        regularisers: which belong to the loss by default, with their parameters.
        fresh: the generator is updated against real images of its own, and on other latent vectors than
            the discriminators have seen.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    discriminators: ClassVar[tuple[str, ...]] = ("discriminator",)
    regularisers: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    fresh: ClassVar[bool] = False

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @abstractmethod
    def judge(self, name: str, critic: Critic, real: Tensor, fake: Tensor) -> Judgement:
        """The loss that the discriminator called ``name`` minimises.

        Args:
            name: one of ``discriminators``.
            real: (N, C, H, W) real images in [0, 1].
            fake: (N, C, H, W) generated ones, cut off from the generator.
        """

    @abstractmethod
    def generate(self, critics: Mapping[str, Critic], fake: Tensor, real: Tensor) -> Tensor:
        """What the generator minimises, as a scalar; ``fake`` carries the generator's graph."""


L = TypeVar("L", bound=type[GanLoss])


def gan_loss(name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()) -> Callable[[L], L]:
    """Decorator that registers a `GanLoss` under ``name``."""
    return GAN_LOSSES.register(name, summary=summary, source=source, aliases=aliases)
