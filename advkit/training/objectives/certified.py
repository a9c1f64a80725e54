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

from advkit.attacks.perturb import fixed
from advkit.core.config import Fraction
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.models.model import Model
from advkit.training.objective import Batch, Objective, Passes, Smoothing, objective
from advkit.training.precision import Bfloat16
from advkit.verify.bounds.affine import Normalise
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.graph import Graph, Nonlinear
from advkit.verify.bounds.interval import interval_bounds, margins_at_last
from advkit.verify.bounds.linear import differences, substitute
from advkit.verify.bounds.read import read
from advkit.verify.bounds.relaxation import Relaxation

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

    Config = CertifiedConfig
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

    def robust_loss(
        self, model: nn.Module, seen: Bounded, worst: Tensor, x: Tensor, y: Tensor, batch: Batch
    ) -> Tensor:
        """The second term, of the ``worst`` logits."""
        return cross_entropy(worst, y)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """That sum, and the worst logits, whose accuracy is what intervals prove."""
        config = self.config
        clean, seen = passed(model, x)
        worst = self.certified(model, seen, x, y, batch)
        kappa = 1 - (1 - config.clean_weight) * batch.growth(config.eps_warmup)
        natural = cross_entropy(clean, y, label_smoothing=config.label_smoothing)
        return kappa * natural + (1 - kappa) * self.robust_loss(model, seen, worst, x, y, batch), worst

    def measure(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Whether intervals prove the image at the eps that is asked for; rounding is left out of account."""
        assert batch.threat is not None
        return (bounded(model).worst(x, batch.threat.eps, y).argmax(1) == y).float()


@objective(
    "ibp",
    summary="clean cross-entropy, and that of the worst outputs within interval bounds (IBP); 3 passes",
    source="Gowal et al., On the Effectiveness of Interval Bound Propagation, 2018, eq. 12",
)
class Ibp(Certified):
    """Differences of logits are bounded through the last layer, as in section 3 there."""

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) by intervals."""
        return seen.worst(x, self.eps(batch), y)


@objective(
    "crown-ibp",
    summary="ibp that starts with linear bounds (CROWN-IBP): more stable, cost grows with the classes",
    source="Zhang et al., Towards Stable and Efficient Training of Verifiably Robust Networks, ICLR 2020",
)
class CrownIbp(Certified):
    """Margins are beta times those of linear bounds and 1 - beta times those of intervals, where beta falls
    from 1 to 0 as eps grows (their beta_start 1, beta_end 0). Until then an image also costs a row for each
    class that is followed back through the network; from there on what it costs in `ibp`."""

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) by that mixture."""
        eps, beta = self.eps(batch), 1 - batch.growth(self.config.eps_warmup)
        lows, highs = seen.ends(x, eps)
        margins = margins_at_last(seen.graph, lows, highs, y)
        if beta == 0:
            return -margins
        with seen.arithmetic(x):
            lines = margins_by_lines(seen.graph, lows, highs, Ball(x, Threat("linf", eps)), y)
        return -(beta * lines + (1 - beta) * margins)


def margins_by_lines(graph: Graph, lows: list[Tensor], highs: list[Tensor], ball: Ball, y: Tensor) -> Tensor:
    """(N, K) lower bounds of the true logit minus each logit: linear functions followed back to the images
    (CROWN), over the ends of all nodes before the last; differentiable."""
    relaxed: dict[int, Relaxation] = {}
    for place in graph.nonlinear():
        node = graph.nodes[place]
        assert isinstance(node.op, Nonlinear)
        relaxed[place] = node.op.relaxed(lows[node.inputs[0]], highs[node.inputs[0]])
    n, classes = len(y), graph.classes
    index = torch.arange(n, device=y.device).repeat_interleave(classes)
    other = torch.arange(classes, device=y.device).repeat(n)
    rows = differences(y[index], other, classes, lows[0].dtype)
    return substitute(graph, relaxed, ball, len(graph) - 1, rows, index).view(n, classes).float()


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, batch: Batch) -> Tensor:
    """(N, C, H, W) where PGD ends within ``eps`` of ``x`` in every pixel."""
    return fixed(
        model,
        x,
        y,
        threat=Threat("linf", eps),
        attack="pgd",
        parameters={"steps": steps},
        ids=batch.ids,
        seed=batch.seed,
        step=batch.step,
    )


class SearchedConfig(CertifiedConfig):
    """Parameters where PGD searches, too."""

    steps: int = Field(8, ge=1)
    """Gradient steps of PGD."""
    clean_weight: Fraction = Field(0.0, ge=0, le=1)
    """Share of the loss that clean images have once eps is full; at the beginning they are all."""


class Searched(Certified):
    """PGD chooses what is bounded, or what it is mixed with."""

    Config = SearchedConfig
    config: SearchedConfig
    criterion = ""
    """PGD chooses the checkpoint: of what is trained so, intervals may prove nothing for long."""

    @property
    def passes(self) -> Passes:
        """PGD's in addition."""
        return Passes(*(count + self.config.steps for count in super().passes))


@objective(
    "small-box",
    summary="interval bounds of a small box around a PGD example (SABR): more accurate, certifies less",
    source="Mueller et al., Certified Training: Small Boxes are All You Need, ICLR 2023 (SABR)",
)
class SmallBox(Searched):
    """PGD goes as far as (1 - share) eps in any pixel. The box of share eps around the point where it ends
    lies inside the ball; its worst outputs are trained on."""

    class Config(SearchedConfig):
        share: Fraction = Field(0.6, gt=0, lt=1)
        """Of eps, what the box has (lambda): the authors take 0.4 on MNIST at linf 0.1 and 0.6 at 0.3. The
        larger it is, the more is proved."""

    config: Config

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) nowhere better than the worst in the small box alone."""
        eps, share = self.eps(batch), self.config.share
        centre = pgd(model, x, y, (1 - share) * eps, self.config.steps, batch)
        return seen.worst(centre, share * eps, y)
