"""Attacks that belong together: what an ensemble is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

from advkit.attacks.attack import ATTACKS
from advkit.core.config import Precision, StrictModel
from advkit.core.registry import Registry, Rows
from advkit.core.threat import Threat

ENSEMBLES: Registry[type[Ensemble]] = Registry("ensemble", "advkit.attacks.ensembles")


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble, on the images that no earlier stage has broken."""

    name: str
    """What results call it; no other stage of the evaluation has this name."""
    attack: str
    """A registered attack."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the attack."""
    precision: Precision | None = None
    """Arithmetic of the search; None: the evaluation's."""
    tolerance: float = 0.0
    """Above 0: the images are attacked in rounds, those with the largest margin first, until the last round
    suggests that all further ones would change the robust accuracy by less than this."""
    round: int = 32
    """Fewest images of such a round."""
    rare: float = 0.25
    """The rounds may end once those tried show that fewer than this share of the images left would fall."""
    after: str | None = None
    """Name of a stage that must have changed the robust accuracy, by no less than the tolerance, for this one
    to run."""
    beyond: int = 0
    """Only where more images than this are left: with fewer, a later stage does the same and more."""
    key: str = ""
    """Random numbers follow from it; by default the name. A change of it changes results."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.name)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the verdicts, for the record of a run."""
        values = asdict(self)
        if self.key == self.name:
            del values["key"]
        for name in ("beyond", "rare"):
            if values[name] == getattr(Stage, name):
                del values[name]
        return values


def stage(key: str, attack: str, **parameters: Any) -> Stage:
    """A part of an ensemble, named after the attack and its parameters: ``apgd-t (9 targets, 50 steps)``.

    Args:
        key: its random numbers follow from it.
    """
    fields = ATTACKS.get(attack).Config.model_fields
    known = {name: fields[name].default for name in ("steps", "queries") if name in fields} | parameters
    title = attack
    if attack == "apgd":
        title = "apgd-t" if known.get("targets") else f"apgd-{known['loss']}"
    counts = [
        f"{known[name]:,} {one if known[name] == 1 else name}"
        for name, one in _COUNTED.items()
        if known.get(name) is not None
    ]
    starts = [f"{known['start']} start"] if "start" in known else []
    return Stage(f"{title} ({', '.join(starts + counts)})", attack, parameters, key=key)


_COUNTED = {
    "targets": "target",
    "restarts": "restart",
    "samples": "sample",
    "ascents": "ascent",
    "steps": "step",
    "queries": "query",
}


class Ensemble(ABC):
    """A plan of stages."""

    Config: ClassVar[type[StrictModel]] = StrictModel

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @abstractmethod
    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """The attacks, in order, for a model of ``classes`` classes."""

    @classmethod
    def listing(cls) -> Rows:
        """Its stages with default parameters, on 10 classes in linf."""
        planned = cls(cls.Config()).stages(Threat(norm="linf", eps=8 / 255), 10)
        given = (", ".join(f"{key}={value}" for key, value in one.parameters.items()) for one in planned)
        return Rows(
            "stages",
            ("name", "attack", "parameters"),
            tuple((one.name, one.attack, text) for one, text in zip(planned, given, strict=True)),
        )


E = TypeVar("E", bound=type[Ensemble])


def ensemble(name: str, *, summary: str, source: str) -> Callable[[E], E]:
    """Decorator that registers an `Ensemble` under ``name``."""
    return ENSEMBLES.register(name, summary=summary, source=source)


def names() -> list[str]:
    """All attacks and ensembles that an evaluation can run, by any of their names."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, ENSEMBLES)
    return sorted(
        name for registry in registries for entry in registry for name in (entry.name, *entry.aliases)
    )
