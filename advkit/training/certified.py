"""Objectives whose loss bounds every answer inside a box around the image: what they lower is proved.

The bounds are those of `advkit.bounds`, computed through the network's own parameters in eval mode: batch
norm takes its running statistics, which the clean pass of the same update has just moved, and nothing is
dropped.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.bounds.graph import Graph
from advkit.bounds.interval import interval_bounds, margins_at_last
from advkit.bounds.read import read
from advkit.config import Fraction
from advkit.errors import ConfigError
from advkit.models.model import Model
from advkit.threat import Threat
from advkit.training.objective import Batch, Objective, Passes, Smoothing
from advkit.training.precision import Bfloat16

_GRAPHS: WeakKeyDictionary[nn.Module, Graph] = WeakKeyDictionary()
"""Graphs of the models in training. They hold the models' own parameters, so they stay true."""


def graph_of(model: nn.Module) -> Graph:
    """What the bounds of ``model``, a `Model` or one in bfloat16, are computed through."""
    inner = model.model if isinstance(model, Bfloat16) else model
    assert isinstance(inner, Model)
    if inner not in _GRAPHS:
        _GRAPHS[inner] = read(inner)
    return _GRAPHS[inner]


def arithmetic(model: nn.Module, x: Tensor) -> AbstractContextManager[Any]:
    """What bounds of ``x`` are computed in: as the model's own passes are."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=isinstance(model, Bfloat16))


def boxes(model: nn.Module, x: Tensor, eps: float) -> tuple[Graph, list[Tensor], list[Tensor]]:
    """The graph, and lower and upper ends of all its nodes but the last, for all images within ``eps`` of
    ``x`` (N, C, H, W) in every pixel; computed as the model's own passes are, in float32 or bfloat16."""
    graph = graph_of(model)
    with arithmetic(model, x):
        return graph, *interval_bounds(graph.body, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1))


def worst(model: nn.Module, x: Tensor, eps: float, y: Tensor) -> Tensor:
    """(N, K) logits nowhere better than the worst within ``eps`` of ``x``: 0 for the true class,
    for each other its largest lead, bounded through the last layer in float32."""
    return -margins_at_last(*boxes(model, x, eps), y)


class Growing(Smoothing):
    """Parameters of all of them."""

    eps_warmup: Fraction = Field(0.5, ge=0, le=1)
    """Share of the training over which eps grows from 0 to its full size: slowly, since bounds that say
    nothing teach nothing."""
    eps_scale: float = Field(1.0, ge=1)
    """By how much eps in training exceeds the one that is asked for; more of it is proved, and less is
    right. Gowal et al. take 2 for linf 0.1 and 4/3 for linf 0.3."""


class Certified(Objective):
    """What they share: linf boxes that grow, and networks that can be read.

    Raises:
        ConfigError: another norm.
        ModelError: when training begins, a layer that cannot be bounded.
    """

    config: Growing
    criterion = "certified"
    bounding = Passes(2, 2)
    """A box has a middle and a radius."""

    def refuse(self, threat: Threat) -> None:
        """Anything but boxes."""
        if threat.norm != "linf":
            raise ConfigError(
                f"this objective bounds boxes, and {threat.norm} balls are none; train with --norm linf, or "
                "with --objective pgd"
            )

    def measure(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Whether intervals prove the image at the eps that is asked for; rounding is left out of account."""
        assert batch.threat is not None
        return (worst(model, x, batch.threat.eps, y).argmax(1) == y).float()

    def eps(self, batch: Batch) -> float:
        """Of this update."""
        assert batch.threat is not None  # the loop has made sure
        return batch.threat.eps * self.config.eps_scale * batch.growth(self.config.eps_warmup)


class Mixed(Growing):
    """Parameters where clean images count, too."""

    clean_weight: Fraction = Field(0.5, ge=0, le=1)
    """Share of the loss that clean images have once eps is full (kappa); at the beginning they are all."""


class CleanAndCertified(Certified):
    """kappa CE(f(x), y) + (1 - kappa) CE(worst logits, y), where kappa falls from 1 as eps grows."""

    config: Mixed

    @property
    def passes(self) -> Passes:
        """The clean one, and the bounds."""
        return Passes(1 + self.bounding.forwards, 1 + self.bounding.backwards)

    @abstractmethod
    def certified(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) logits nowhere better than the worst within eps."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """That sum, and the worst logits, whose accuracy is what intervals prove."""
        config = self.config
        clean = model(x)  # first, since it moves the statistics that bounds are computed with
        said = self.certified(model, x, y, batch)
        kappa = 1 - (1 - config.clean_weight) * batch.growth(config.eps_warmup)
        natural = cross_entropy(clean, y, label_smoothing=config.label_smoothing)
        return kappa * natural + (1 - kappa) * cross_entropy(said, y), said
