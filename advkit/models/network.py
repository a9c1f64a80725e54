"""Base classes of networks by role, and the registry of architectures.

Every network is built as ``cls(config, shape=(C, H, W), classes=K)`` and works on pixels in [0, 1]:
a generator whose last layer is a tanh, or a discriminator that wants [-1, 1], converts inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from pydantic import Field
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.config import StrictModel, validate
from advkit.core.errors import ConfigError
from advkit.core.registry import Registry
from advkit.models.card import Role, Shape

ARCHITECTURES: Registry[type[Network]] = Registry("architecture", "advkit.models.architectures")


class Network(nn.Module, ABC):
    """Anything with weights that the model registry can hold."""

    Config: ClassVar[type[StrictModel]] = StrictModel

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__()
        self.config, self.shape, self.classes = config, shape, classes


class Classifier(Network):
    """Images (N, C, H, W) to logits (N, classes).

    Raises:
        ConfigError: fewer than two classes, or images smaller than ``least``.
    """

    classes: int
    layers: nn.Module
    least: ClassVar[int] = 1
    """Smallest height and width that it can take."""

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        if classes is None or classes < 2:
            raise ConfigError(
                f"it needs 2 classes or more (got {classes}); take data of several, or say their number"
            )
        if shape[0] < 1 or min(shape[1:]) < self.least:
            raise ConfigError(
                f"images must have at least 1 channel and {self.least}x{self.least} pixels; give larger ones"
            )
        super().__init__(config, shape=shape, classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]; by default those of ``layers``."""
        logits: Tensor = self.layers(x)
        return logits


class Generator(Network):
    """Latent vectors (N, latent_dim) to images (N, C, H, W) in [0, 1].

    One that has ``classes`` is conditional: it is called with latent vectors and classes (N,).
    """

    class Config(StrictModel):
        latent_dim: int = Field(100, ge=1)
        """Numbers in a latent vector."""

    latent_dim: int
    layers: nn.Module
    signed: ClassVar[bool] = False
    """Whether the pixels of ``layers`` are in [-1, 1], as behind a tanh."""

    def __init__(self, config: StrictModel, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        if isinstance(config, Generator.Config):
            self.latent_dim = config.latent_dim

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1] of latent vectors; by default those of ``layers``."""
        images: Tensor = self.layers(z)
        return (images + 1) / 2 if self.signed else images

    def asked(self, labels: Tensor | None) -> tuple[Tensor, ...]:
        """What it is called with beside latent vectors: the classes, if it is conditional."""
        return () if self.classes is None or labels is None else (labels,)

    def draw(self, key: Tensor) -> Tensor:
        """Latent vectors (N, latent_dim) from the prior, one for each key of `rng.keys`; N(0, 1) here."""
        return rng.normal(key, (self.latent_dim,))


class Discriminator(Network):
    """Images (N, C, H, W) to one logit each (N,): positive says real. "Critic" is the same role.

    ``features`` is everything but the last layer, so that it can be reused as the trunk of a classifier.
    One that has ``classes`` is conditional: it is called with images and their classes (N,).
    """

    feature_dim: int
    trunk: nn.Module
    head: nn.Module
    signed: ClassVar[bool] = False
    """Whether ``trunk`` takes pixels in [-1, 1]."""

    def features(self, x: Tensor) -> Tensor:
        """(N, feature_dim) of images in [0, 1]; by default those of ``trunk``."""
        features: Tensor = self.trunk(2 * x - 1 if self.signed else x)
        return features

    def new_head(self, outputs: int) -> nn.Module:
        """A fresh last layer with so many outputs, for who puts the features to another use."""
        return nn.Linear(self.feature_dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N,) of being real."""
        logits: Tensor = self.head(self.features(x))
        return logits.squeeze(1)


class PerturbationGenerator(Network):
    """Images (N, C, H, W) in [0, 1] to directions (N, C, H, W) in [-1, 1], in which they are to be changed.

    How far is the budget's affair: see `advkit.attacks.advgan.moved`.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Directions in [-1, 1] of images in [0, 1]."""


class Vae(Network):
    """Images to the mean and log-variance of their latent vectors, and back by a generator."""

    decoder: Generator

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (N, latent_dim), of images (N, C, H, W) in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Images in [0, 1] as they come back from the mean of their latent vectors."""
        images: Tensor = self.decoder(self.encode(x)[0])
        return images


N = TypeVar("N", bound=type[Network])
M = TypeVar("M", bound=Network)


def architecture(
    name: str, *, role: Role, summary: str, source: str = "", aliases: tuple[str, ...] = ()
) -> Callable[[N], N]:
    """Decorator that registers a network class under ``name``.

    A generator and a discriminator whose names are ``PAIR-generator`` and ``PAIR-discriminator`` form
    the pair that ``advkit gan-train --arch PAIR`` trains.
    """
    enrol = ARCHITECTURES.register(name, summary=summary, source=source, aliases=aliases, role=role)
    return cast(Callable[[N], N], enrol)


def build(
    name: str, *, shape: Shape, classes: int | None = None, config: dict[str, Any] | None = None
) -> Network:
    """A freshly initialised network (from PyTorch's global generator: use `advkit.core.rng.scope` around it).

    Raises:
        ConfigError: unknown architecture or parameter, or an image size or channel count it cannot take.
    """
    kind = ARCHITECTURES.get(name)
    settings = validate(kind.Config, config or {}, f"architecture {name!r}")
    try:
        return kind(settings, shape=shape, classes=classes)
    except ConfigError as error:
        raise ConfigError(f"architecture {name!r} on {shape} images: {error}") from error


def inner(
    kind: type[M],
    what: str,
    name: str,
    *,
    shape: Shape,
    classes: int | None = None,
    config: dict[str, Any] | None = None,
) -> M:
    """The network inside another one, as `build` makes it; ``what`` it is called there.

    Raises:
        ConfigError: as in `build`, or it is no ``kind``.
    """
    entry = ARCHITECTURES.entry(name)
    if not issubclass(entry.thing, kind):
        raise ConfigError(
            f"the {what} {name!r} is a {entry.facts['role']}; name the architecture of a {kind.__name__}"
        )
    return cast(M, build(name, shape=shape, classes=classes, config=config))


def pairs() -> list[str]:
    """Names of the generator-discriminator pairs."""
    names = {entry.name for entry in ARCHITECTURES}
    ends = ("-generator", "-discriminator")
    stems = {name.removesuffix(ends[0]) for name in names if name.endswith(ends[0])}
    return sorted(stem for stem in stems if stem + ends[1] in names)


def vaes() -> list[str]:
    """Names of the variational autoencoders."""
    return [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "vae"]


def generative() -> list[str]:
    """All that ``advkit gan-train --arch`` takes."""
    return sorted([*pairs(), *vaes()])


def numbers(network: nn.Module) -> int:
    """How many numbers a network consists of, batch norm's running statistics among them."""
    return sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())
