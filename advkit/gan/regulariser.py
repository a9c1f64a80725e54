"""What keeps a discriminator smooth: a term that is added to its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from advkit.core.config import StrictModel
from advkit.core.registry import Registry
from advkit.gan.critic import Critic
from advkit.gan.loss import Judgement
from advkit.training.schedule import factor

REGULARISERS: Registry[type[Regulariser]] = Registry("regulariser", "advkit.gan.regularisers")


class Schedule(StrictModel):
    """Parameters of every regulariser: how much, how often, and how that changes."""

    weight: float = Field(1.0, gt=0)
    """Factor of the term."""
    final: float | None = Field(None, ge=0)
    """Factor at the end, where the weight goes along half a cosine; by default it stays."""
    every: int = Field(1, ge=1)
    """Steps between uses; a term that is used every fourth step weighs four times as much then."""


class Regulariser(ABC):
    """A term of a discriminator's loss."""

    Config: ClassVar[type[Schedule]] = Schedule
    through: ClassVar[tuple[Literal["real", "fake"], ...]] = ()
    """Images whose graph `penalty` needs from them to the judgement."""

    def __init__(self, config: Schedule) -> None:
        self.config = config

    @abstractmethod
    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, judged: Judgement, noise: Tensor) -> Tensor:
        """The term, without its weight, as a scalar.

        Args:
            critic: whom to keep smooth.
            real: (N, C, H, W) real images in [0, 1].
            fake: (N, C, H, W) generated ones, cut off from the generator.
            judged: what the critic has said of both.
            noise: (N,) numbers in [0, 1), in case that it needs random ones.
        """

    def due(self, step: int) -> bool:
        """Whether it is used in step number ``step``, from 0."""
        return step % self.config.every == 0

    def weight(self, step: int, steps: int) -> float:
        """The factor of step ``step`` of ``steps``, with what the steps without it are owed."""
        first, last = self.config.weight, self.config.final
        if last is not None:
            first = last + (first - last) * factor("cosine", step, steps)
        return first * self.config.every


def squared_gradient(answers: Tensor, images: Tensor) -> Tensor:
    """(N,) squared Euclidean norms of the gradient of each row's answer, with their own graph.

    Where images are judged in packs, a pack's answer counts for the gradient of each of them.
    """
    (gradient,) = torch.autograd.grad(answers.sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


R = TypeVar("R", bound=type[Regulariser])


def regulariser(name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()) -> Callable[[R], R]:
    """Decorator that registers a `Regulariser` under ``name``."""
    return REGULARISERS.register(name, summary=summary, source=source, aliases=aliases)
