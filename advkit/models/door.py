"""Doors: the ways to name a model that is no checkpoint, one file in ``doors/`` for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from torch import Tensor, nn

from advkit.core.errors import ModelError
from advkit.core.notes import Note
from advkit.core.registry import Registry
from advkit.models.card import ModelCard, Preprocessing, Role, Shape

DOORS: Registry[type[Door]] = Registry("way to name a model", "advkit.models.doors")


@dataclass(frozen=True)
class Said:
    """What the caller says of a model that has no card."""

    role: Role | None = None
    arch: str | None = None
    shape: Shape | None = None
    classes: int | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    weights_key: str | None = None
    state: Mapping[str, Tensor] | None = None
    """Weights from a file, for a network that is named."""
    file: Path | None = None
    """The file that they are from."""
    untrained: bool = False
    """No weights are wanted."""
    allow_torchscript: bool = False
    """A file of TorchScript may be run."""
    access: Literal["scores", "decisions"] | None = None
    """It is a black box, which gives these."""
    max_queries: int | None = None
    """Limit of the queries about an image."""
    max_total_queries: int | None = None
    """Limit of the queries of a run."""

    @property
    def normalisation_open(self) -> bool:
        """The caller does not say how images are normalised."""
        return self.preprocessing.model_copy(update={"outputs": "logits"}) == Preprocessing()


@dataclass(frozen=True)
class Found:
    """A network, and what it says of itself; what it leaves open is asked of the caller."""

    network: nn.Module
    architecture: str = ""
    """For the card; by default the class of the network."""
    config: dict[str, Any] = field(default_factory=dict)
    """For the card: what `Door.build` needs to make the network again."""
    shape: Shape | None = None
    classes: int | None = None
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    notes: tuple[Note, ...] = ()
    """What a person should know."""


@dataclass(frozen=True)
class Fit:
    """How image files become what a network was trained on."""

    resize: int | tuple[int, int] | None
    """The shorter side to which they are resized, or (height, width)."""
    crop: int | None
    """Side of the square that is then cut out of the middle."""
    bicubic: bool
    """Whether they are resized by bicubic interpolation, else bilinear."""


class Door(ABC):
    """One way to name a model, or one kind of file or object that holds one."""

    @abstractmethod
    def open(self, where: Any, said: Said) -> Found:
        """The model.

        Args:
            where: a name with the door's prefix, the path of a file that exists, or an object of its type.

        Raises:
            UserError: there is none, or it cannot be loaded.
        """

    def holds(self, path: Path) -> bool:
        """Whether a file that exists, whose suffix is not the door's, is one of its files nevertheless."""
        return False

    def build(self, card: ModelCard) -> nn.Module:
        """The network of a card that this door made, untrained (from PyTorch's global generator).

        Raises:
            ModelError: it is nothing that a card can say.
        """
        raise ModelError(
            f"its network was read from a file or object of {card.architecture}, and no card holds one; "
            "load that, or give the network as package.module:function"
        )

    def fit(self, where: str) -> Fit | None:
        """How image files fit the model, found out without loading it; None where that is open."""
        return None


D = TypeVar("D", bound=type[Door])


def door(name: str, *keys: str, summary: str) -> Callable[[D], D]:
    """Decorator that registers a door.

    Args:
        keys: what leads to it: prefixes of names (``timm:``), suffixes of files (``.pt2``), and types of
            objects, as ``module:class`` of the class or a base, with the module that it is defined in.
    """
    return cast(Callable[[D], D], DOORS.register(name, summary=summary, keys=keys))


def named_door(text: str) -> Door | None:
    """The door whose prefix ``text`` has."""
    return next((entry.thing() for entry in DOORS if _prefixed(text, entry.facts["keys"])), None)


def file_door(path: Path) -> Door | None:
    """The door to a file: the one of its suffix, else the one that knows what is in it."""
    for entry in DOORS:
        if path.suffix and path.suffix in entry.facts["keys"]:
            return entry.thing()
    if not path.is_file():
        return None
    doors = (entry.thing() for entry in DOORS)
    return next((found for found in doors if found.holds(path)), None)


def object_door(thing: object) -> Door | None:
    """The door to an object, by its type or a base of it."""
    names = {f"{base.__module__}:{base.__qualname__}" for base in type(thing).__mro__}
    return next((entry.thing() for entry in DOORS if names & {*entry.facts["keys"]}), None)


def _prefixed(text: str, keys: tuple[str, ...]) -> bool:
    return text.startswith(tuple(key for key in keys if key.endswith(":")))
