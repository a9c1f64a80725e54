"""What training minimises on a batch: cross-entropy on the images, or on adversarial ones, and more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.core.config import Fraction, StrictModel
from advkit.core.registry import Registry
from advkit.core.threat import Threat
from advkit.models.card import Shape
from advkit.models.model import Model

OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective", "advkit.training.objectives", "advkit.trained_attacks.generators.objectives"
)


@dataclass(frozen=True)
class Setting:
    """What is known of a training before its first update."""

    shape: Shape
    """Of the images."""
    threats: tuple[Threat, ...]
    """What the attacker may change."""
    steps: int
    """Updates that there will be."""
    seed: int
    device: torch.device


class Companion(ABC):
    """Networks that an objective trains beside the classifier. They belong to the run's state.

    Where several processes share the batch, they have to be the same in all of them.
    """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that a resume needs."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""

    @abstractmethod
    def models(self) -> dict[str, Model]:
        """What is worth keeping at the end, by what is added to the classifier's name."""


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
    others: tuple[Threat, ...] = ()
    """Further threat models: of its examples in all of them, an image's worst counts."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """What the objective keeps for later updates: a row for each place in the batch. It belongs to the run's
    state, so that a resumed run has it too."""
    companion: Companion | None = None
    """What the objective trains beside the classifier, by its `Objective.companion`."""

    def growth(self, share: float) -> float:
        """How much there is, in (0, 1], of something that grows evenly over the first ``share`` of the
        training."""
        return min(1.0, (self.step + 1) / self.steps / share) if share else 1.0


class Passes(NamedTuple):
    """Passes through the model that one image costs in one update."""

    forwards: int
    backwards: int


class Smoothing(StrictModel):
    """Parameters of objectives that have a cross-entropy."""

    label_smoothing: Fraction = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all classes."""


class Objective(ABC):
    """A loss on one batch."""

    Config: ClassVar[type[StrictModel]] = StrictModel
    needs_threat: ClassVar[bool] = True
    """Whether it makes no sense without a threat model."""
    chooses: ClassVar[bool] = False
    """Whether it looks at `Batch.others`, and trains each image on the worst of its examples."""
    inner: Passes = Passes(0, 0)
    """Of `passes`, those of the attacker; they come again for each further threat model."""
    bounding: Passes = Passes(0, 0)
    """Of `passes`, those of bounds, which are computed beside the model."""
    replays: int = 1
    """Updates in a row that see the same batch."""
    criterion: ClassVar[str] = ""
    """What `measure` finds, in a word, where it chooses the best checkpoint; nothing: accuracy under PGD."""

    advice: ClassVar[str] = "Training knows PGD well: advkit attack judges by stronger attacks."
    """How what it has trained is to be judged, for a person."""
    judges: ClassVar[tuple[str, ...]] = ()
    """Commands that do so before any attack; {} is the model."""

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @property
    def passes(self) -> Passes:
        """What an image costs in one update; by default one pass each way."""
        return Passes(1, 1)

    def refuse(self, threat: Threat) -> None:  # noqa: B027 (most have nothing to refuse)
        """Raises a `ConfigError` where the objective cannot train against ``threat``."""

    def companion(self, setting: Setting) -> Companion | None:
        """What it trains beside the classifier, before the first update; None: nothing."""
        return None

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the update minimises.

        Args:
            model: images in [0, 1] to logits (N, K), in train mode.
            x: (N, C, H, W) images in [0, 1].
            y: (N,) classes.

        Returns:
            (scalar loss, logits (N, K) whose accuracy is shown as training goes on).
        """

    def measure(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N,) how good the model is on held-out images, from 0 to 1; the mean of all chooses the best
        checkpoint of an objective that has a ``criterion``.

        Args:
            model: images to logits, in eval mode; no gradient is wanted.
            x: (N, C, H, W) images in [0, 1].
            y: (N,) classes.
            batch: ids, seed and threat; random numbers follow from the first two, so that all checkpoints
                are judged alike.
        """
        raise NotImplementedError

    def gradients(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Adds the loss's gradients to those of the parameters and returns what `loss` does, cut off from the
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
