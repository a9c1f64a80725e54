"""What the doors to libraries of classifiers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.errors import ConfigError, ModelError, by_size
from advkit.core.notes import Note
from advkit.models import match
from advkit.models.card import ModelCard, Preprocessing, Shape
from advkit.models.checkpoint import State
from advkit.models.door import Door, Fit, Found, Said
from advkit.models.weights import fill


@dataclass(frozen=True)
class Pretrained:
    """What a library says of a classifier's own weights."""

    architecture: str
    """For the card: the prefix, and what names the network alone."""
    shape: Shape
    classes: int
    preprocessing: Preprocessing | None = None
    """None where the library does not say."""
    labels: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    """For the card: what else determines the network."""
    fit: Fit | None = None
    size_bound: bool = False
    """The weights fit images of this size alone."""


class Zoo(Door):
    """A library of classifiers, each with its own weights and preprocessing."""

    library: ClassVar[str]

    @abstractmethod
    def pretrained(self, where: str) -> Pretrained:
        """The facts about a classifier's own weights; nothing is downloaded.

        Raises:
            ConfigError: the library has no classifier of that name.
        """

    @abstractmethod
    def network(self, architecture: str, shape: Shape, classes: int, config: dict[str, Any]) -> nn.Module:
        """A freshly initialised classifier of a card (from PyTorch's global generator).

        Raises:
            ConfigError: images that it cannot take.
        """

    @abstractmethod
    def weights(self, where: str) -> State:
        """A classifier's own weights, from a cache or the network.

        Raises:
            ModelError: they cannot be had.
        """

    def open(self, where: str, said: Said) -> Found:
        """The classifier with its own weights, those of a file, or none."""
        own, state = self.pretrained(where), said.state
        shape, classes, origin = said.shape or own.shape, said.classes, ", untrained"
        if state is None and not said.untrained:
            state = self.weights(where)
        if state is not None:
            classes = match.classes_in(state, lambda count: self._sizes(own, shape, count))
            origin = f" with {said.file.name if said.file else 'its own weights'}"
        notes = [Note("origin", f"network of {self.library}{origin}")]
        trained = state is not None and classes == own.classes
        preprocessing = None if said.state or not said.untrained else Preprocessing()
        if trained:
            preprocessing = own.preprocessing
            if preprocessing is not None and said.normalisation_open:
                how = f"normalised as the own weights of {self.library} want it"
                notes.append(Note("normalisation-read", how))
            shape = own.shape if own.size_bound else shape
            if shape != own.shape:
                notes.append(Note("size-trained", f"trained on images of {by_size(own.shape)}"))
        with rng.scope("cpu", 0, "build"):
            network = self._built(own.architecture, shape, classes, own.config)
        if state is not None:
            read, more = fill(network, self._needed(state), said, where)
            notes += more if preprocessing is None else [n for n in more if n.code != "normalisation-read"]
            preprocessing = preprocessing or read
        return Found(
            network,
            own.architecture,
            own.config,
            shape,
            classes,
            own.labels if trained else (),
            preprocessing,
            tuple(notes),
        )

    def build(self, card: ModelCard) -> nn.Module:
        """The network of a card."""
        return self._built(card.architecture, card.shape, card.classes, card.config)

    def fit(self, where: str) -> Fit | None:
        """How image files fit a classifier's own weights."""
        return self.pretrained(where).fit

    def _needed(self, state: Mapping[str, Tensor]) -> State:
        return dict(state)

    def _built(
        self, architecture: str, shape: Shape, classes: int | None, config: dict[str, Any]
    ) -> nn.Module:
        if classes is None or classes < 2:
            raise ConfigError(
                f"{architecture} without trained weights needs the number of classes; say it with --classes"
            )
        return self.network(architecture, shape, classes, config)

    def _sizes(self, own: Pretrained, shape: Shape, classes: int) -> dict[str, torch.Size]:
        """Shapes of the tensors of a network that is not really built."""
        with torch.device("meta"):
            network = self.network(own.architecture, shape, classes, own.config)
        return {name: tensor.shape for name, tensor in network.state_dict().items()}


def needs(package: str, extra: str, where: str) -> ModelError:
    """The error for a library that is not installed."""
    return ModelError(f"{where} needs {package}; run: pip install {package} (the extra advkit[{extra}])")
