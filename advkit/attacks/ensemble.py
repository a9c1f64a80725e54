"""The ensemble interface: several attacks in stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from advkit.attacks.attack import ATTACKS
from advkit.core.config import Precision, StrictModel
from advkit.core.registry import Registry
from advkit.core.threat import Threat

ENSEMBLES: Registry[type[Ensemble]] = Registry("ensemble", "advkit.attacks.ensembles")


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble, on the images that are still robust."""

    name: str
    """Name in results, unique in the evaluation."""
    attack: str
    """A registered attack."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the attack."""
    precision: Precision | None = None
    """Arithmetic of the search; None: the evaluation's."""
    tolerance: float = 0.0
    """Above 0: the images are attacked in rounds, the largest margin first, until the expected change of the
    robust accuracy by all further rounds is below this."""
    round: int = 32
    """Smallest size of such a round, in images."""
    after: str | None = None
    """Run this stage only if that one has changed the robust accuracy by at least the tolerance."""


class Ensemble(ABC):
    """A plan of stages.

    Args:
        config: parameters of this ensemble.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @abstractmethod
    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """The attacks, in order, for a model of ``classes`` classes."""


E = TypeVar("E", bound=type[Ensemble])


def ensemble(name: str, *, summary: str, source: str) -> Callable[[E], E]:
    """Decorator that registers an `Ensemble` under ``name``."""
    return ENSEMBLES.register(name, summary=summary, source=source)


def names() -> list[str]:
    """All names that an evaluation accepts: attacks and ensembles, with their aliases."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, ENSEMBLES)
    return sorted(
        name for registry in registries for entry in registry for name in (entry.name, *entry.aliases)
    )
