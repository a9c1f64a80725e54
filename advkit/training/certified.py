"""Objectives of certified training: bounds of the outputs in a box around the image.

The bounds are those of `advkit.verify.bounds`, through the network's own parameters. Nothing is dropped, and
batch norm takes the statistics that the clean images of the same batch have (Shi et al., NeurIPS 2021): its
running ones lag behind weights that move fast, and let bounds explode.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.core.config import Fraction
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.models.model import Model
from advkit.training.objective import Batch, Objective, Passes, Smoothing
from advkit.training.precision import Bfloat16
from advkit.verify.bounds.affine import Normalise
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.interval import interval_bounds, margins_at_last
from advkit.verify.bounds.read import read

_GRAPHS: WeakKeyDictionary[nn.Module, Graph] = WeakKeyDictionary()
"""Graphs of the models in training. They hold the models' own parameters, so they stay true."""


def _inner(model: nn.Module) -> Model:
    inner = model.model if isinstance(model, Bfloat16) else model
    assert isinstance(inner, Model)
    return inner


def graph_of(model: nn.Module) -> Graph:
    """What the bounds of ``model``, a `Model` or one in bfloat16, are computed through."""
    inner = _inner(model)
    if inner not in _GRAPHS:
        _GRAPHS[inner] = read(inner)
    return _GRAPHS[inner]


@dataclass(frozen=True)
class Bounded:
    """A model in training, as bounds see it.

    Args:
        graph: its layers.
        low: whether its passes are computed in bfloat16; bounds are, too, but for the last layer.
    """

    graph: Graph
    low: bool

    def arithmetic(self, x: Tensor) -> AbstractContextManager[Any]:
        """What bounds of ``x`` are computed in."""
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.low)

    def ends(self, x: Tensor, eps: float) -> tuple[list[Tensor], list[Tensor]]:
        """Lower and upper ends of all nodes but the last, for all images within ``eps`` of ``x`` (N, C, H, W)
        in every pixel."""
        with self.arithmetic(x):
            return interval_bounds(self.graph.body, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1))

    def worst(self, x: Tensor, eps: float, y: Tensor) -> Tensor:
        """(N, K) logits nowhere better than the worst within ``eps`` of ``x``, by intervals: 0 for the true
        class, for each other its largest lead."""
        return -margins_at_last(self.graph, *self.ends(x, eps), y)


def bounded(model: nn.Module) -> Bounded:
    """With batch norm's running statistics."""
    return Bounded(graph_of(model), isinstance(model, Bfloat16))


def passed(model: nn.Module, x: Tensor) -> tuple[Tensor, Bounded]:
    """Logits of ``x`` (N, C, H, W), and the model with the statistics that its batch norms have seen there;
    gradients reach them. In eval mode they keep their running ones."""
    seen = bounded(model)
    norms = {node.name: k for k, node in enumerate(seen.graph.nodes) if isinstance(node.op, Normalise)}
    found: dict[int, Normalise] = {}

    def look(place: int, layer: nn.Module, images: tuple[Tensor, ...]) -> None:
        op = seen.graph.nodes[place].op
        if layer.training and isinstance(op, Normalise):
            values = images[0].float().movedim(1, -1).flatten(0, -2)
            mean = values.mean(0)
            # torch.var takes three times as long on a CPU; what rounding adds to a width of 0 is below eps
            variance = ((values * values).mean(0) - mean * mean).clamp(min=0)
            found[place] = replace(op, mean=mean.view_as(op.mean), variance=variance.view_as(op.variance))

    inner = _inner(model)
    hooks = [
        inner.network.get_submodule(name).register_forward_pre_hook(partial(look, place))
        for name, place in norms.items()
    ]
    try:
        logits: Tensor = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    nodes = tuple(replace(node, op=found.get(k, node.op)) for k, node in enumerate(seen.graph.nodes))
    return logits, replace(seen, graph=Graph(nodes))


class CertifiedConfig(Smoothing):
    """Parameters of all of them."""

    eps_warmup: Fraction = Field(0.5, ge=0, le=1)
    """Share of the training over which eps grows from 0 to its full size: slowly, since bounds that say
    nothing teach nothing."""
    eps_scale: float = Field(1.0, ge=1)
    """By how much eps in training exceeds the one that is asked for; more of it is proved, and less is
    right. Gowal et al. take 2 for linf 0.1 and 4/3 for linf 0.3."""
    clean_weight: Fraction = Field(0.5, ge=0, le=1)
    """Share of the loss that clean images have once eps is full (kappa); at the beginning they are all."""


class Certified(Objective):
    """kappa CE(f(x), y) + (1 - kappa) CE(worst logits, y), where kappa falls from 1 as eps grows.

    Raises:
        ConfigError: another norm than linf.
        ModelError: when training begins, a layer that cannot be bounded.
    """

    config: CertifiedConfig
    criterion = "certified"
    advice = (
        "Intervals prove much of it: advkit certify tells how much, and attacks then need the rest alone."
    )
    judges = ("advkit certify --model {}", "advkit attack --model {} --certify")
    bounding = Passes(2, 2)
    """A box has a middle and a radius."""

    @property
    def passes(self) -> Passes:
        """The clean one, and the bounds."""
        return Passes(1 + self.bounding.forwards, 1 + self.bounding.backwards)

    def refuse(self, threat: Threat) -> None:
        """Anything but boxes."""
        if threat.norm != "linf":
            raise ConfigError(
                f"this objective bounds boxes, and {threat.norm} balls are none; train with --norm linf, or "
                "with --objective pgd"
            )

    def eps(self, batch: Batch) -> float:
        """Of this update."""
        assert batch.threat is not None  # the loop has made sure
        full = min(1.0, batch.threat.eps * self.config.eps_scale)
        return full * batch.growth(self.config.eps_warmup)

    @abstractmethod
    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) logits nowhere better than the worst within eps, of the model as its clean pass has been
        ``seen``."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """That sum, and the worst logits, whose accuracy is what intervals prove."""
        config = self.config
        clean, seen = passed(model, x)
        said = self.certified(model, seen, x, y, batch)
        kappa = 1 - (1 - config.clean_weight) * batch.growth(config.eps_warmup)
        natural = cross_entropy(clean, y, label_smoothing=config.label_smoothing)
        return kappa * natural + (1 - kappa) * cross_entropy(said, y), said

    def measure(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Whether intervals prove the image at the eps that is asked for; rounding is left out of account."""
        assert batch.threat is not None
        return (bounded(model).worst(x, batch.threat.eps, y).argmax(1) == y).float()
