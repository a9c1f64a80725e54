"""Purifiers: defences that change images before classification to remove adversarial perturbations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

from torch import Tensor, nn

from advkit.core.config import StrictModel, validate
from advkit.core.errors import ConfigError, DataError
from advkit.core.registry import Registry
from advkit.gan.evaluation.subject import Subject
from advkit.models.card import Shape

DEFENCES: Registry[type[Purifier]] = Registry("defence", "advkit.defences.purifiers")

Way = Literal["identity", "gradient"]
"""Gradient that an adaptive attack uses for it: the identity's (BPDA), or the true one."""


class Purifier(nn.Module, ABC):
    """Maps images (N, C, H, W) in [0, 1] to images of the same shape, each independently of the others.

    Args:
        subject: the generator or VAE inside it, if it `needs` one.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    needs: ClassVar[Literal["generator", "vae"] | None] = None
    """Role of the model inside it; a VAE's decoder counts as a generator, too."""
    ways: ClassVar[tuple[Way, ...]] = ("identity",)
    """Gradients that adaptive attacks must use in turn; the true one only for a differentiable purifier."""

    def __init__(self, config: StrictModel, subject: Subject | None, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape = config, shape

    @property
    def random(self) -> bool:
        """Whether it draws from PyTorch's generator, so that two passes differ."""
        return False

    @property
    def cost(self) -> int:
        """Forward and backward passes of its generator for one image."""
        return 0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The purified images."""


class ArtPurifier(Purifier):
    """A preprocessing of ART: ``art`` is an `advkit.integrations.art_defences.Defence`."""

    art: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """What ART makes of the images."""
        images: Tensor = self.art(x)
        return images


P = TypeVar("P", bound=type[Purifier])


def defence(name: str, *, summary: str, source: str) -> Callable[[P], P]:
    """Decorator that registers a `Purifier` under ``name``."""
    return DEFENCES.register(name, summary=summary, source=source)


def build(
    name: str, config: dict[str, object], subject: Subject | None, *, shape: Shape, classes: int
) -> Purifier:
    """The defence called ``name``.

    Raises:
        ConfigError: unknown name or parameter, a generator that is missing, not needed or of another role.
        DataError: the generator makes images of another shape, or of other classes.
    """
    kind = DEFENCES.get(name)
    settings = validate(kind.Config, config, f"defence {name!r}")
    if kind.needs is None:
        if subject is not None:
            raise ConfigError(f"{name} needs no generator; leave --generator out")
        return kind(settings, None, shape)
    if subject is None:
        raise ConfigError(f"{name} needs a {kind.needs}; name one with --generator")
    if kind.needs == "vae" and subject.whole is None:
        raise ConfigError(f"{name} needs a VAE but {subject.name} is a generator; name a VAE")
    subject.refuse_other_shape(shape)
    if subject.classes is not None and subject.classes != classes:
        raise DataError(
            f"{subject.name} has {subject.classes} classes but the classifier has {classes}; name a "
            "generator of the same classes"
        )
    return kind(settings, subject, shape)
