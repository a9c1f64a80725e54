"""The objective of a GAN's game: what each player wants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, TypeVar

from torch import Tensor

from advkit.config import StrictModel
from advkit.models.network import Discriminator
from advkit.registry import Registry

GAN_LOSSES: Registry[type[GanLoss]] = Registry("GAN loss", "advkit.gan.losses")


class Judgement(NamedTuple):
    """A discriminator's loss on one batch, and its logits (N,) on the real and on the generated half."""

    loss: Tensor
    real: Tensor
    fake: Tensor


class GanLoss(ABC):
    """The losses of both sides.

    ``opponents`` are the networks that judge the generator, each of the pair's discriminator architecture
    and updated in this order before the generator; most games have one.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    opponents: ClassVar[tuple[str, ...]] = ("discriminator",)

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @abstractmethod
    def judge(self, opponent: str, network: Discriminator, real: Tensor, fake: Tensor) -> Judgement:
        """What the opponent called ``opponent`` minimises.

        Args:
            opponent: one of ``opponents``.
            network: that opponent.
            real: (N, C, H, W) real images in [0, 1].
            fake: (N, C, H, W) generated ones, cut off from the generator.
        """

    @abstractmethod
    def generate(self, networks: Mapping[str, Discriminator], fake: Tensor, real: Tensor) -> Tensor:
        """What the generator minimises, as a scalar; ``fake`` carries the generator's graph."""


L = TypeVar("L", bound=type[GanLoss])


def gan_loss(name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()) -> Callable[[L], L]:
    """Decorator that registers a `GanLoss` under ``name``."""
    return GAN_LOSSES.register(name, summary=summary, source=source, aliases=aliases)
