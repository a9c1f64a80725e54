"""What is done to images before they are classified, so that what an attacker has added is gone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

from torch import Tensor, nn

from advkit.core.config import StrictModel, validate
from advkit.core.errors import ConfigError, DataError, by_size
from advkit.core.registry import Registry
from advkit.gan.evaluation.subject import Subject
from advkit.models.card import Shape

DEFENCES: Registry[type[Purifier]] = Registry("defence", "advkit.defences.purifiers")

Way = Literal["identity", "gradient"]
"""How an attacker who knows of it gets through: with the identity's gradient (BPDA), or with its own."""


class Purifier(nn.Module, ABC):
    """Images (N, C, H, W) in [0, 1] to images of the same shape, each from itself alone.

    Args:
        config: its own parameters.
        subject: the generator that it is made of, for one that `needs` it.
        shape: of the images.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    needs: ClassVar[Literal["generator", "vae"] | None] = None
    """Role of the model that it is made of; a VAE's decoder counts as a generator, too."""
    ways: ClassVar[tuple[Way, ...]] = ("identity",)
    """Those by which an attacker has to be tried; the gradient only where there is one."""

    def __init__(self, config: StrictModel, subject: Subject | None, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape = config, shape

    @property
    def random(self) -> bool:
        """Whether it draws from PyTorch's generator, so that two passes differ."""
        return False

    @property
    def cost(self) -> int:
        """Passes of its generator, forward and backward, that one image costs."""
        return 0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The purified images."""


P = TypeVar("P", bound=type[Purifier])


def defence(name: str, *, summary: str, source: str) -> Callable[[P], P]:
    """Decorator that registers a `Purifier` under ``name``."""
    return DEFENCES.register(name, summary=summary, source=source)


def build(
    name: str, config: dict[str, object], subject: Subject | None, *, shape: Shape, classes: int
) -> Purifier:
    """The defence called ``name``.

    Args:
        name: a registered one.
        config: its own parameters.
        subject: the generator that it is made of.
        shape: of the images that are classified.
        classes: that the classifier tells apart.

    Raises:
        ConfigError: unknown name or parameter, a generator that is missing, idle or of another role.
        DataError: the generator makes images of another shape, or knows other classes.
    """
    kind = DEFENCES.get(name)
    settings = validate(kind.Config, config, f"defence {name!r}")
    if kind.needs is None:
        if subject is not None:
            raise ConfigError(f"{name} is made of no generator; leave --generator out")
        return kind(settings, None, shape)
    if subject is None:
        raise ConfigError(f"{name} is made of a {kind.needs}; name one with --generator")
    if kind.needs == "vae" and subject.whole is None:
        raise ConfigError(f"{name} wants a VAE and {subject.name} is a generator; name a VAE")
    if subject.card.shape != shape:
        theirs, ours = map(by_size, (subject.card.shape, shape))
        raise DataError(
            f"{subject.name} makes {theirs} images but the classifier is asked about {ours} ones "
            "(channels x height x width); name a generator of such images"
        )
    if subject.classes is not None and subject.classes != classes:
        raise DataError(
            f"{subject.name} knows {subject.classes} classes but the classifier tells {classes} apart; name "
            "a generator of the same classes"
        )
    return kind(settings, subject, shape)
