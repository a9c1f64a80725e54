"""The common parts of adversarial training: the attack, the eps schedule, and weight perturbation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.attacks.attack import ATTACKS
from advkit.attacks.engine.oracle import query
from advkit.attacks.engine.record import column
from advkit.attacks.loss import AttackLoss, ce
from advkit.attacks.perturb import fixed, make
from advkit.core.config import Fraction, StrictModel
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.models.model import evaluation_mode
from advkit.training.objective import Batch, Objective, Passes
from advkit.training.weights import moved


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
    @abstractmethod
    def own(self) -> Passes:
        """What an image costs in `outer`."""

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
            threat=Threat(threat.norm, threat.eps * growth),
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
