"""The attack interface: one iteration on a batch of rows, each row at its own iteration.

A row is one image, attacked from one start (and, for some attacks, toward one class). The engine handles
batching, early exit, budgets, query counting and success; an attack contains none of these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from advkit.attacks.engine.record import TensorRecord
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.core.registry import Registry
from advkit.core.threat import Norm, Threat

if TYPE_CHECKING:
    from advkit.attacks.engine.oracle import Oracle

Access = Literal["gradients", "scores", "decisions", "none"]
"""What the attacker can query: gradients and all below; logits; the predicted class; nothing."""

ATTACKS: Registry[type[Attack[Any]]] = Registry("attack", "advkit.attacks", "advkit.integrations")


@dataclass
class Rows(TensorRecord):
    """The constant inputs of each row."""

    x0: Tensor
    """(R, C, H, W) original images."""
    label: Tensor
    """(R,) true classes."""
    target_class: Tensor | None
    """(R,) class that counts as success (targeted attack); None: any wrong class."""
    search_target: Tensor | None
    """(R,) class that the search moves toward (``target_class``, if given); None: away from the label."""
    clean: Tensor
    """(R, K) logits of the original images, computed once for all attacks."""
    sample: Tensor
    """(R,) ids of the samples."""
    variant: Tensor
    """(R,) which of the attack's variants (starts, targets) this row is, from 0."""
    key: Tensor
    """(R,) random keys of this attack, sample and variant; see `advkit.core.rng`."""

    @classmethod
    def untargeted(cls, x0: Tensor, label: Tensor, ids: Tensor, key: Tensor) -> Rows:
        """Untargeted rows of one variant, for callers outside the scheduler."""
        return cls(
            x0,
            label,
            target_class=None,
            search_target=None,
            clean=x0.new_zeros(len(x0), 0),
            sample=ids,
            variant=torch.zeros_like(label),
            key=key,
        )


@dataclass
class State(TensorRecord):
    """The state of each row; attacks add fields."""

    rows: Rows
    x: Tensor
    """(R, C, H, W) the point that the next step evaluates; the last one is evaluated when the row ends."""
    iteration: Tensor
    """(R,) steps taken."""


S = TypeVar("S", bound=State)


class Attack(ABC, Generic[S]):
    """A state machine over rows.

    A step evaluates ``state.x`` by querying the oracle, which records every success, and returns the next
    state. ``start`` does not query the model, so starting rows one by one costs nothing.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1", "l0")
    """Norms that the attack supports."""
    access: ClassVar[Access] = "gradients"
    """Access that the attack needs; the oracle refuses queries beyond it."""
    minimal: ClassVar[bool] = False
    """A minimum-norm attack: it searches for the nearest success rather than for any within a budget."""
    fine: ClassVar[bool] = False
    """It searches in float32 only: what it looks for is smaller than the errors of a coarser arithmetic."""
    single_image: ClassVar[bool] = False
    """A single-image attack: one row at a time, with any number of queries a step
    (`Oracle.single_image_logits`)."""

    cost: ClassVar[str] = ""
    """What a dry run says of the passes where their number is unknown."""

    def __init__(self, config: StrictModel, threat: Threat) -> None:
        if threat.norm not in self.norms:
            raise ConfigError(
                f"{type(self).__name__} supports {', '.join(self.norms)}, not {threat.norm}; "
                "choose another attack or norm"
            )
        self.config, self.threat = config, threat

    @property
    def steps(self) -> int:
        """Number of steps of a row: ``config.steps`` or, of one query each, ``config.queries``, unless an
        attack overrides it."""
        steps: int | None = getattr(self.config, "steps", None)
        return int(self.config.queries) if steps is None else steps  # type: ignore[attr-defined]

    @property
    def starts(self) -> int:
        """Rows per sample and target: ``config.restarts``, where it exists, else 1."""
        return int(getattr(self.config, "restarts", 1))

    @property
    def targets(self) -> int:
        """Number of target classes, one row each, largest logit first; 0: untargeted."""
        return int(getattr(self.config, "targets", 0))

    def variants(self, classes: int) -> int:
        """Rows per sample, of a classifier with so many classes."""
        return self.starts * max(1, min(self.targets, classes - 1))

    def most_passes(self, classes: int) -> int:
        """Forward and backward passes that an image costs at most, with one to confirm each row."""
        return self.variants(classes) * (self.steps * (2 if self.access == "gradients" else 1) + 1)

    @property
    def artifact_hash(self) -> str:
        """Hash of what the attack uses besides its parameters, such as a network; usually empty."""
        return ""

    @abstractmethod
    def start(self, rows: Rows) -> S:
        """The state before the first step."""

    @abstractmethod
    def step(self, state: S, oracle: Oracle) -> S:
        """One iteration; the engine increments ``state.iteration``."""


A = TypeVar("A", bound=type[Attack[Any]])


def attack(name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()) -> Callable[[A], A]:
    """Decorator that registers an `Attack` under ``name``."""
    return ATTACKS.register(name, summary=summary, source=source, aliases=aliases)
