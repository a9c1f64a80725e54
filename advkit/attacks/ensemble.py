"""Attacks that belong together: what an ensemble is."""

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
    """One attack of an ensemble, on the images that still stand."""

    name: str
    """What it is called in results; no other stage of the evaluation has this name."""
    attack: str
    """A registered attack."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the attack."""
    precision: Precision | None = None
    """Arithmetic of the search; None: the evaluation's."""
    tolerance: float = 0.0
    """Above 0: the images are attacked in rounds, the nearest to falling first, until a round lets expect
    that all further ones would change the robust accuracy by less than this."""
    round: int = 32
    """Fewest images of such a round."""
    after: str | None = None
    """A stage that must have changed the robust accuracy, by no less than the tolerance, for this one to be
    worth running."""


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
        """The attacks, in order, for a model that tells ``classes`` classes apart."""


E = TypeVar("E", bound=type[Ensemble])


def ensemble(name: str, *, summary: str, source: str) -> Callable[[E], E]:
    """Decorator that registers an `Ensemble` under ``name``."""
    return ENSEMBLES.register(name, summary=summary, source=source)


def names() -> list[str]:
    """All that an evaluation can be asked for: attacks and ensembles, by any of their names."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, ENSEMBLES)
    return sorted(
        name for registry in registries for entry in registry for name in (entry.name, *entry.aliases)
    )
