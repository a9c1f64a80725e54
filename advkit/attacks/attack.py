"""What an attack is: one iteration on a batch of rows, each at an iteration of its own.

A row is one image, attacked from one start (and, for some attacks, toward one class). An attack is written
without a thought for batching, early exit, budgets, counting or success: the engine owns those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor

from advkit.attacks.record import TensorRecord
from advkit.config import StrictModel
from advkit.errors import ConfigError
from advkit.registry import Registry
from advkit.threat import Norm, Threat

if TYPE_CHECKING:
    from advkit.attacks.oracle import Oracle

ATTACKS: Registry[type[Attack]] = Registry("attack", "advkit.attacks")


@dataclass
class Rows(TensorRecord):
    """What is fixed about each row."""

    x0: Tensor
    """(R, C, H, W) original images."""
    label: Tensor
    """(R,) true classes."""
    goal: Tensor
    """(R,) class that the attacker wants, or -1: any wrong one."""
    clean: Tensor
    """(R, K) logits of the originals, computed once for all attacks."""
    sample: Tensor
    """(R,) ids of the samples."""
    variant: Tensor
    """(R,) which of the attack's variants (restarts, targets) this row is, from 0."""
    key: Tensor
    """(R,) random keys of this attack, sample and variant; see `advkit.rng`."""

    @classmethod
    def untargeted(cls, x0: Tensor, label: Tensor, ids: Tensor, key: Tensor) -> Rows:
        """Rows of one variant with no goal, for callers outside the scheduler."""
        return cls(
            x0,
            label,
            goal=torch.full_like(label, -1),
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


class Attack(ABC):
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

    def __init__(self, config: StrictModel, threat: Threat) -> None:
        if threat.norm not in self.norms:
            raise ConfigError(
                f"{type(self).__name__} works in {', '.join(self.norms)}, not in {threat.norm}; "
                "choose another attack or norm"
            )
        self.config, self.threat = config, threat

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps after which a row is finished."""

    @property
    def variants(self) -> int:
        """Rows per sample; later ones are only run where the earlier ones failed."""
        return 1

    @abstractmethod
    def start(self, rows: Rows) -> State:
        """The state before the first step."""

    @abstractmethod
    def step(self, state: State, oracle: Oracle) -> State:
        """One iteration; the engine counts it."""


A = TypeVar("A", bound=type[Attack])


def attack(name: str, *, summary: str, source: str, aliases: tuple[str, ...] = ()) -> Callable[[A], A]:
    """Decorator that registers an `Attack` under ``name``."""
    return ATTACKS.register(name, summary=summary, source=source, aliases=aliases)
