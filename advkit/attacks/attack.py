"""What an attack is: one iteration on a batch of rows, each at an iteration of its own.

A row is one image, attacked from one start (and, for some attacks, toward one class). An attack is written
without a thought for batching, early exit, budgets, counting or success: the engine owns those.
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
"""What an attacker sees: gradients and all below; logits; the predicted class; nothing."""

ATTACKS: Registry[type[Attack[Any]]] = Registry("attack", "advkit.attacks", "advkit.integrations")


@dataclass
class Rows(TensorRecord):
    """What is fixed about each row."""

    x0: Tensor
    """(R, C, H, W) original images."""
    label: Tensor
    """(R,) true classes."""
    goal: Tensor | None
    """(R,) class that the model must say; None: any wrong one will do."""
    aim: Tensor | None
    """(R,) class that the row climbs toward (the goal, where there is one); None: away from the label."""
    clean: Tensor
    """(R, K) logits of the originals, computed once for all attacks."""
    sample: Tensor
    """(R,) ids of the samples."""
    variant: Tensor
    """(R,) which of the attack's variants (starts, targets) this row is, from 0."""
    key: Tensor
    """(R,) random keys of this attack, sample and variant; see `advkit.core.rng`."""

    @classmethod
    def untargeted(cls, x0: Tensor, label: Tensor, ids: Tensor, key: Tensor) -> Rows:
        """Rows of one variant with no aim, for callers outside the scheduler."""
        return cls(
            x0,
            label,
            goal=None,
            aim=None,
            clean=x0.new_zeros(len(x0), 0),
            sample=ids,
            variant=torch.zeros_like(label),
            key=key,
        )


@dataclass
class State(TensorRecord):
    """Where each row stands; attacks add fields."""

    rows: Rows
    x: Tensor
    """(R, C, H, W) the point that the next step judges; the last one is judged when the row leaves."""
    iteration: Tensor
    """(R,) steps taken."""


S = TypeVar("S", bound=State)


class Attack(ABC, Generic[S]):
    """A state machine over rows.

    A step judges ``state.x`` (by asking the oracle, which notices every success) and moves on. ``start``
    makes no pass through the model, so that rows can be started one by one at no cost.

    Args:
        config: parameters of this attack.
        threat: what the attacker may change.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1", "l0")
    """Norms that the attack works in."""
    access: ClassVar[Access] = "gradients"
    """What the attack needs to see; the oracle shows it no more."""
    minimal: ClassVar[bool] = False
    """It looks for the nearest success rather than for any within a budget."""
    alone: ClassVar[bool] = False
    """It works on one row at a time, about which it asks what and as often as it likes (`Oracle.sole`)."""

    def __init__(self, config: StrictModel, threat: Threat) -> None:
        if threat.norm not in self.norms:
            raise ConfigError(
                f"{type(self).__name__} works in {', '.join(self.norms)}, not in {threat.norm}; "
                "choose another attack or norm"
            )
        self.config, self.threat = config, threat

    @property
    def steps(self) -> int:
        """Steps after which a row is finished: the configuration's, unless an attack says otherwise."""
        return int(self.config.steps)  # type: ignore[attr-defined]

    @property
    def starts(self) -> int:
        """Rows per sample and target: the configuration's restarts, where it has them."""
        return int(getattr(self.config, "restarts", 1))

    @property
    def targets(self) -> int:
        """Wrong classes that are aimed at, one row each, the likeliest first; 0: away from the label."""
        return int(getattr(self.config, "targets", 0))

    @property
    def made_of(self) -> str:
        """Hash of what it depends on beside its parameters, a network for instance; mostly nothing."""
        return ""

    @abstractmethod
    def start(self, rows: Rows) -> S:
        """The state before the first step."""

    @abstractmethod
    def step(self, state: S, oracle: Oracle) -> S:
        """One iteration; the engine counts it."""


A = TypeVar("A", bound=type[Attack[Any]])


def attack(name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()) -> Callable[[A], A]:
    """Decorator that registers an `Attack` under ``name``."""
    return ATTACKS.register(name, summary=summary, source=source, aliases=aliases)
