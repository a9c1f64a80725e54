"""What training minimises on a batch: cross-entropy on the images, or on adversarial ones, and more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from advkit.config import StrictModel
from advkit.registry import Registry
from advkit.threat import Threat

OBJECTIVES: Registry[type[Objective]] = Registry("objective", "advkit.training.objectives")


@dataclass(frozen=True)
class Batch:
    """What an objective may need to know beside the images and their labels."""

    ids: Tensor
    """(N,) int64 ids of the samples, on the images' device."""
    step: int
    """Which update this is, from 0."""
    steps: int
    """How many there will be."""
    seed: int
    """The user's seed: every random number is a function of (seed, id, step)."""
    threat: Threat | None = None
    """What the attacker may change."""


class Passes(NamedTuple):
    """Passes through the model that one image costs in one update."""

    forwards: int
    backwards: int


class Objective(ABC):
    """A loss on one batch.

    Args:
        config: the objective's own parameters.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    needs_threat: ClassVar[bool] = True
    """Whether it makes no sense without a threat model."""

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """What an image costs in one update."""

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the update minimises.

        Args:
            model: images in [0, 1] to logits (N, K), in train mode.
            x: (N, C, H, W) images in [0, 1].
            y: (N,) classes.
            batch: everything else.

        Returns:
            (scalar loss, logits (N, K) whose accuracy is shown as training goes on).
        """

    def gradients(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leaves the loss's gradients in the parameters and returns what `loss` does, cut off from the
        graph. Overridden where the gradients are not simply the loss's own (taken at shifted weights)."""
        loss, logits = self.loss(model, x, y, batch)
        loss.backward()
        return loss.detach(), logits.detach()


Kind = TypeVar("Kind", bound=type[Objective])


def objective(
    name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()
) -> Callable[[Kind], Kind]:
    """Decorator that registers an `Objective` under ``name``."""
    return OBJECTIVES.register(name, summary=summary, source=source, aliases=aliases)
