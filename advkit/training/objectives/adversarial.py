"""Objectives of ordinary and of adversarial training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from advkit.attacks.attack import ATTACKS
from advkit.attacks.engine.oracle import query
from advkit.attacks.engine.record import column
from advkit.attacks.loss import AttackLoss, picked, strongest_other
from advkit.attacks.losses.ce import ce
from advkit.attacks.parts.ascent import steepest_
from advkit.attacks.perturb import fixed, make
from advkit.core import distributed
from advkit.core.config import Fraction, StrictModel
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.models.model import evaluation_mode
from advkit.training.objective import Batch, Objective, Passes, Smoothing, objective


@objective("standard", summary="cross-entropy on clean images", source="maximum likelihood")
class Standard(Objective):
    """-log p(label), averaged over the batch."""

    Config = Smoothing
    config: Smoothing
    needs_threat = False

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits on the clean images."""
        logits = model(x)
        return cross_entropy(logits, y, label_smoothing=self.config.label_smoothing), logits


TINY = 1e-12
"""Least length of a gradient, against division by nothing."""


@contextmanager
def moved(
    model: nn.Module, loss: Callable[[], tuple[Tensor, Tensor]], size: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Moves each layer's weights by ``size`` times their own norm along the gradient of ``loss``;
    afterwards they are what they were, bit for bit (Wu et al., NeurIPS 2020, section 4, one step).

    Weights are what has two dimensions or more: biases and normalisation stay. Running statistics are moved
    by the pass inside alone, and no parameter's own ``grad`` is touched. Where several processes share the
    batch, the gradient is the mean of theirs.

    Args:
        loss: (what to climb, logits), computed anew at every call.
        size: of the step, relative to the length of each layer's weights.

    Yields:
        What ``loss`` gave at the weights as they were, cut off from the graph.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() > 1]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    value, logits = loss()
    slopes = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    distributed.average(slopes)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for buffer, kept in buffers:
            buffer.copy_(kept)
        for weight, slope in zip(weights, slopes, strict=True):
            weight.add_(slope * (size * weight.norm() / slope.norm().clamp(min=TINY)))
    try:
        yield value.detach(), logits.detach()
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)


class Inside(StrictModel):
    """Parameters of all of them."""

    eps_warmup: Fraction = Field(0.1, ge=0, le=1)
    """Share of the training over which eps (and step_size) grows from 0 to its full size; without it,
    training at a large eps begins on a long plateau."""
    awp: Fraction = Field(0.0, ge=0, lt=1)
    """Adversarial weight perturbation (Wu et al., NeurIPS 2020): the update's gradients are taken where the
    weights of each layer have moved so far, relative to their length, up the loss. 0 for none; they use 0.005
    to 0.01."""


class Attacker(Inside):
    """Parameters where the attacker may be chosen."""

    attack: str = "pgd"
    """Who makes the examples: an attack that climbs gradients for a fixed number of steps."""
    steps: int = Field(7, ge=1)
    """Gradient steps of the attacker."""
    step_size: Fraction | None = Field(None, gt=0)
    """In units of pixels; by default what the attack makes of eps and steps (pgd: 2.5 * eps / steps)."""
    attacker: dict[str, Any] = {}
    """The attack's other parameters, as --set parameters.attacker.KEY=VALUE."""

    @property
    def given(self) -> dict[str, Any]:
        """The attack's parameters: steps and their size where they were named or the attack has them."""
        known = getattr(ATTACKS.get(self.attack).Config, "model_fields", {})
        own = {"steps": self.steps, "step_size": self.step_size}
        return {key: own[key] for key in own if key in known or key in self.model_fields_set} | self.attacker


class InnerAttack(Objective):
    """An attacker makes examples of the model in eval mode; the update minimises `outer` on them.

    Examples are made anew for every batch, all steps, with no early exit: what the engine does in
    `advkit.attacks.perturb.fixed`. The attacker's random numbers follow from (seed, sample, update).

    Raises:
        ConfigError: an unknown attack, unknown parameters, or an attack that is not of fixed steps up a
            gradient.
    """

    config: Inside
    chooses = True
    ahead: ClassVar[Passes] = Passes(0, 0)
    """What `climb` costs."""

    def __init__(self, config: StrictModel) -> None:
        super().__init__(config)
        name, parameters = self.attacker
        kind = ATTACKS.get(name)
        if kind.access != "gradients":
            raise ConfigError(
                f"attack {name!r} sees {kind.access} only, and training wants one that climbs gradients; "
                "name pgd or mi-fgsm, for example"
            )
        if kind.single_image or kind.minimal:
            raise ConfigError(
                f"attack {name!r} does not go a fixed number of steps inside a budget, as training wants; "
                "name pgd or mi-fgsm, for example"
            )
        attack = make(name, Threat(kind.norms[0], 0.1), parameters)
        if attack.starts > 1 or attack.targets:
            raise ConfigError(
                f"attack {name!r} has several starts or target classes here, and training makes one example "
                "of an image; leave restarts and targets out"
            )
        passes = attack.steps * getattr(attack.config, "samples", 1)
        self.inner = Passes(passes, passes)

    @property
    @abstractmethod
    def attacker(self) -> tuple[str, dict[str, Any]]:
        """Name and parameters of the attack."""

    @property
    def own(self) -> Passes:
        """What an image costs in `outer`; by default one pass each way."""
        return Passes(1, 1)

    @abstractmethod
    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """(what the update minimises, the logits whose accuracy is shown), as `Objective.loss`."""

    def climb(self, model: nn.Module, x: Tensor) -> AttackLoss | None:
        """What the attacker climbs instead of the attack's own loss; None: its own."""
        return None

    @property
    def passes(self) -> Passes:
        """The attacker's, and the update's own, once more where weights are moved."""
        own = [self.own] * (2 if self.config.awp else 1)
        forwards, backwards = (sum(counts) for counts in zip(self.inner, self.ahead, *own, strict=True))
        return Passes(forwards, backwards)

    def refuse(self, threat: Threat) -> None:
        """Raises a ConfigError for a norm that the attacker does not work in."""
        name, parameters = self.attacker
        make(name, threat, parameters)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """`outer` on fresh examples, at the weights as they are."""
        return self.outer(model, x, self.examples(model, x, y, batch), y, batch)

    def gradients(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Those of `outer`, at moved weights where ``awp`` says so."""
        examples = self.examples(model, x, y, batch)
        if not self.config.awp:
            loss, logits = self.outer(model, x, examples, y, batch)
            loss.backward()
            return loss.detach(), logits.detach()
        with moved(model, lambda: self.outer(model, x, examples, y, batch), self.config.awp) as gradients:
            self.outer(model, x, examples, y, batch)[0].backward()
        return gradients

    def examples(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, C, H, W) inside the threat model; of several, each image's worst by what is climbed."""
        assert batch.threat is not None  # the loop has made sure
        climb = self.climb(model, x)
        threats = (batch.threat, *batch.others)
        made = torch.stack([self._attacked(model, x, y, threat, climb, batch) for threat in threats])
        if len(threats) == 1:
            return made[0]
        with torch.no_grad(), evaluation_mode(model):
            reached = torch.stack([(climb or ce)(query(model, tried).float(), y, None) for tried in made])
        worst = reached.argmax(0)
        chosen = made[0]
        for number in range(1, len(threats)):
            chosen = torch.where(column(worst == number, x), made[number], chosen)
        return chosen

    def _attacked(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, climb: AttackLoss | None, batch: Batch
    ) -> Tensor:
        name, parameters = self.attacker
        growth = batch.growth(self.config.eps_warmup)
        return fixed(
            model,
            x,
            y,
            threat=threat.scaled(growth),
            attack=name,
            parameters=_grown(parameters, growth),
            ids=batch.ids,
            seed=batch.seed,
            step=batch.step,
            loss=climb,
        )


def _grown(parameters: Mapping[str, Any], growth: float) -> dict[str, Any]:
    """With a step size, where one is named, as far as eps has grown."""
    size = parameters.get("step_size")
    return {**parameters, "step_size": size * growth} if size else dict(parameters)


class ChosenAttack(InnerAttack):
    """The attacker is the one that the parameters name."""

    config: Attacker

    @property
    def attacker(self) -> tuple[str, dict[str, Any]]:
        """As configured."""
        return self.config.attack, self.config.given


@objective(
    "pgd",
    summary="cross-entropy on PGD examples of every batch (Madry et al.)",
    source="Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018",
)
class PgdTraining(ChosenAttack):
    """Equation 2.1: the attacker climbs the cross-entropy of the model in eval mode, the update goes down."""

    class Config(Attacker, Smoothing):
        clean_weight: Fraction = Field(0.0, ge=0, le=1)
        """Share of the clean images' loss: 0 trains on adversarial examples only, 0.5 on both alike."""

    config: Config

    @property
    def own(self) -> Passes:
        """One each way, and another for the clean images."""
        passes = 2 if self.config.clean_weight else 1
        return Passes(passes, passes)

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropies, and the logits on the adversarial images."""
        logits, smoothing = model(examples), self.config.label_smoothing
        loss = cross_entropy(logits, y, label_smoothing=smoothing)
        share = self.config.clean_weight
        if share:
            clean = cross_entropy(model(x), y, label_smoothing=smoothing)
            loss = (1 - share) * loss + share * clean
        return loss, logits


@objective(
    "fgsm",
    summary="cross-entropy on examples of one gradient step from a random start",
    source="Wong, Rice and Kolter, Fast is better than free, ICLR 2020",
    aliases=("fast-at",),
)
class FgsmTraining(InnerAttack):
    """Algorithm 3: uniform in the ball, then one step of 1.25 eps, projected. It costs two passes each way.

    The model can become robust to this one step and nothing else (catastrophic overfitting), suddenly and
    after many good updates. The loop says so when it happens; a longer step, a larger eps and a longer
    training make it likelier.
    """

    class Config(Inside, Smoothing):
        step: float = Field(1.25, gt=0)
        """Length of the step, in units of eps: 1 is safer, 2 leads to catastrophic overfitting."""

    config: Config

    @property
    def attacker(self) -> tuple[str, dict[str, Any]]:
        """The one step."""
        return "r-fgsm", {"step": self.config.step}

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits on the adversarial images."""
        logits = model(examples)
        return cross_entropy(logits, y, label_smoothing=self.config.label_smoothing), logits


SHARE = 0.01
"""Of the values that a step moves in l1, as in pgd."""


@objective(
    "free",
    summary="cross-entropy on examples that are updated every step, at the cost of ordinary training",
    source="Shafahi et al., Adversarial Training for Free!, NeurIPS 2019",
)
class Free(Objective):
    """Algorithm 1: each batch is seen ``replays`` times in a row; every backward pass moves the weights down
    and the perturbation up, by a step of eps. The perturbation of a place in the batch is kept from update to
    update, from one batch to the next too, and begins at 0.

    ``epochs`` count updates, so the images are seen epochs / replays times, and the whole costs what ordinary
    training costs.
    """

    class Config(Smoothing):
        replays: int = Field(8, ge=1)
        """Updates in a row on the same batch, m in the paper."""
        eps_warmup: Fraction = Field(0.1, ge=0, le=1)
        """Share of the training over which eps grows from 0 to its full size."""

    config: Config

    def __init__(self, config: StrictModel) -> None:
        super().__init__(config)
        self.replays = self.config.replays

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits on the images as they are perturbed now."""
        logits = model(self._perturbed(x, batch))
        return cross_entropy(logits, y, label_smoothing=self.config.label_smoothing), logits

    def gradients(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Also moves the perturbation, by the gradient that the same backward pass leaves at the images."""
        perturbed = self._perturbed(x, batch).requires_grad_()
        logits = model(perturbed)
        loss = cross_entropy(logits, y, label_smoothing=self.config.label_smoothing)
        loss.backward()
        assert perturbed.grad is not None
        threat, now = self._now(batch), perturbed.detach()
        step = steepest_(perturbed.grad, now, threat, SHARE)
        batch.memory[self._name(batch)] = threat.project_(now.add(step, alpha=threat.eps), x) - x
        return loss.detach(), logits.detach()

    def _perturbed(self, x: Tensor, batch: Batch) -> Tensor:
        """(N, C, H, W) inside the threat model as large as it is now."""
        kept = batch.memory.get(self._name(batch))
        return x.clone() if kept is None else self._now(batch).project_(x + kept, x)

    def _now(self, batch: Batch) -> Threat:
        assert batch.threat is not None  # the loop has made sure
        return batch.threat.scaled(batch.growth(self.config.eps_warmup))

    @staticmethod
    def _name(batch: Batch) -> str:
        return f"perturbation in {batch.threat}"


def divergences(meant: Tensor, said: Tensor) -> Tensor:
    """(N,) Kullback-Leibler divergences KL(p || q) of what logits ``said`` (N, K) tell, q, from what logits
    ``meant`` tell, p; in nats, 0 where both tell the same."""
    p, q = log_softmax(meant, 1), log_softmax(said, 1)
    return (p.exp() * (p - q)).sum(1)


class Diverging(Attacker):
    """Parameters where a weighted divergence is added."""

    steps: int = Field(10, ge=1)
    """Gradient steps of the attacker."""
    beta: float = Field(ge=0)
    """Weight of the divergence."""
    beta_warmup: Fraction = Field(0.0, ge=0, le=1)
    """Share of the training over which beta grows from 0 to its full size."""

    def weight(self, batch: Batch) -> float:
        """beta in this update."""
        return self.beta * batch.growth(self.beta_warmup)


@objective(
    "trades",
    summary="clean cross-entropy plus beta times the divergence of outputs inside the ball (TRADES)",
    source="Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019",
)
class Trades(ChosenAttack):
    """Algorithm 1: CE(f(x), y) + beta * max KL(f(x) || f(x')), averaged over the batch.

    The attacker climbs the same divergence, from the model's answer on the clean image in eval mode. It
    starts from a random point of the ball, where the paper starts from the image with a little Gaussian noise
    on it. Gradients flow through both answers, as in the authors' code.
    """

    class Config(Diverging, Smoothing):
        beta: float = Field(6.0, ge=0)
        """Weight of the divergence: the authors use 6 on CIFAR-10 and 1 on MNIST."""

    config: Config
    ahead = Passes(1, 0)
    own = Passes(2, 2)

    def climb(self, model: nn.Module, x: Tensor) -> AttackLoss:
        """The divergence from the model's present answers."""
        with torch.no_grad(), evaluation_mode(model):
            meant = query(model, x).float()

        def away(logits: Tensor, label: Tensor, aim: Tensor | None = None) -> Tensor:
            return divergences(meant, logits)

        return away

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """That sum, and the logits on the adversarial images."""
        clean, logits = model(x), model(examples)
        loss = cross_entropy(clean, y, label_smoothing=self.config.label_smoothing)
        return loss + self.config.weight(batch) * divergences(clean, logits).mean(), logits


LEAST = 1e-4
"""Added to 1 - p inside a logarithm, as in the authors' code: the term stays below 9.3."""


def boosted(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) boosted cross-entropy (section 3.2) of logits (N, K): -log p(y) - log(1 - p of the strongest other
    class). The second part asks for a margin."""
    other = strongest_other(logits.softmax(1), y)
    return cross_entropy(logits, y, reduction="none") - (1 - other + LEAST).log()


@objective(
    "mart",
    summary="boosted cross-entropy, and a divergence weighted by misclassification (MART)",
    source="Wang et al., Improving Adversarial Robustness Requires Revisiting Misclassified Examples, 2020",
)
class Mart(ChosenAttack):
    """Section 3.2: BCE(f(x'), y) + beta * KL(f(x) || f(x')) * (1 - p(y | x)), averaged over the batch; the
    attacker climbs the cross-entropy."""

    class Config(Diverging):
        beta: float = Field(5.0, ge=0)
        """Weight of the divergence, lambda in the paper."""

    config: Config
    own = Passes(2, 2)

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """That sum, and the logits on the adversarial images."""
        clean, logits = model(x), model(examples)
        doubt, beta = 1 - picked(clean.softmax(1), y), self.config.weight(batch)
        return (boosted(logits, y) + beta * divergences(clean, logits) * doubt).mean(), logits
