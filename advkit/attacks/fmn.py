"""The fast minimum-norm attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.losses.margin import margin
from advkit.attacks.parts.balls import annealed, fewest, fill_, length, movable_, slope
from advkit.attacks.parts.boundary import toward, toward_target
from advkit.core.config import StrictModel
from advkit.core.threat import Threat


@dataclass
class FMNState(State):
    """The ball of each row, and its smallest successful radius so far."""

    radius: Tensor
    """(R,) of the ball to whose edge ``x`` was moved."""
    nearest: Tensor
    """(R,) distance of the nearest success; before any, ``farthest``."""
    farthest: Tensor
    """(R,) distance of the farthest corner of the box."""
    found: Tensor
    """(R,) bool: there was a success."""


@attack(
    "fmn",
    summary="gradient steps on a ball that shrinks on success and grows on failure",
    source="Pintor et al. 2021",
)
class FMN(Attack[FMNState]):
    """Pintor, Roli, Brendel and Biggio, NeurIPS 2021, algorithm 1, along the edge of the ball.

    Until the first success the radius slightly exceeds the distance of the linearised boundary (in l0 that of
    the first ball does, and later ones grow). Three things differ from the paper and find nearer successes
    where gradients are small: entries of the gradient that lead out of [0, 1] are dropped; in linf the step
    is along the sign; and a change that does not fill the ball is scaled up (in l0 the steps are longer).
    """

    class Config(StrictModel):
        steps: int = Field(100, ge=1)
        """Gradient steps."""
        step_size: float | None = Field(None, gt=0)
        """Euclidean length of the first step; by default 1, in l0 8. It decreases along a cosine to
        a hundredth, in l0 to three tenths."""
        gamma: float = Field(0.05, gt=0, lt=1)
        """Relative change of the radius in the first step."""
        gamma_final: float = Field(0.001, gt=0, lt=1)
        """Relative change in the last step."""

    config: Config
    minimal = True

    def __init__(self, config: Config, threat: Threat) -> None:
        super().__init__(config, threat)
        first, share = (8.0, 0.3) if threat.norm == "l0" else (1.0, 0.01)
        self._step_size = config.step_size or first
        self._step_size_final = share * self._step_size
        self._gamma = config.gamma

    def start(self, rows: Rows) -> FMNState:
        """The originals."""
        farthest = self.threat.distance((rows.x0 < 0.5).to(rows.x0.dtype), rows.x0)
        iteration = rows.label.new_zeros(len(rows))
        return FMNState(
            rows,
            rows.x0.clone(),
            iteration,
            radius=torch.ones_like(farthest),
            nearest=farthest,
            farthest=farthest,
            found=iteration.bool(),
        )

    def step(self, state: FMNState, oracle: Oracle) -> FMNState:
        """Evaluates ``x``, sets the radius and takes a step along the edge."""
        rows, x, config, norm = state.rows, state.x, self.config, self.threat.norm
        loss, grad, logits = self.boundary(x, rows, oracle)
        won = margin_of(logits, rows) > 0
        distance = self.threat.distance(x, rows.x0)
        nearest = torch.where(won, torch.minimum(distance, state.nearest), state.nearest)
        found = state.found | won
        beyond = self.beyond(x, loss, grad, found)
        grad = movable_(grad, x)
        gamma = annealed(state.iteration, config.steps, self._gamma, config.gamma_final)
        shrunk, grown = state.radius * (1 - gamma), state.radius * (1 + gamma)
        if norm == "l0":
            shrunk = torch.minimum(state.radius - 1, shrunk.floor())
            grown = torch.maximum(state.radius + 1, grown.floor())
            first = state.iteration == 0
            if x.device.type != "cpu" or first.any():
                grown = torch.where(first, fewest(grad, x, loss.abs()), grown)
        else:
            boundary = distance + loss.abs() / slope(grad, norm)
            grown = torch.where(found, grown, boundary * (1 + gamma))
        radius = torch.where(won, torch.minimum(shrunk, nearest), grown)
        radius = torch.minimum(radius.clamp(min=0), state.farthest)
        if norm == "linf":
            grad.sign_()
        size = annealed(state.iteration, config.steps, self._step_size, self._step_size_final)
        x = fill_(x.addcmul_(grad, column(size / length(grad), x)), rows.x0, radius, norm)
        if beyond is not None:
            x = torch.where(column(found, x), x, beyond)
            radius = torch.where(found, radius, self.threat.distance(x, rows.x0))
        return FMNState(rows, x, state.iteration, radius, nearest, state.farthest, found)

    def boundary(self, x: Tensor, rows: Rows, oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
        """(signed distance beyond the boundary (R,), in logits, its gradient (R, C, H, W), logits (R, K))."""
        return oracle.loss_and_grad(x, rows, margin)

    def beyond(self, x: Tensor, loss: Tensor, grad: Tensor, found: Tensor) -> Tensor | None:
        """(R, C, H, W) the next points of the rows without a success; None: on the edge of the ball, too."""
        return None


@attack(
    "fmn-t",
    summary="targeted FMN: steps across the boundary to a class, then the ball shrinks from far inside it",
    source="after Moosavi-Dezfooli et al. 2016 and Pintor et al. 2021",
)
class FMNT(FMN):
    """Until its first success a row steps over the linearised boundary of its class, as DeepFool does; FMN
    follows, with a ball that first shrinks fast.

    Gradients near an image of a hardened network lead FMN to far boundaries; from far inside a wrong class it
    comes back across a nearer one.
    """

    class Config(FMN.Config):
        gamma: float | None = Field(None, gt=0, lt=1)  # type: ignore[assignment]
        """Relative change of the radius in the first step; by default 30 (in l1 20, in linf 8) divided by
        ``steps``, at most 0.4 (in linf 0.2)."""
        targets: int = Field(9, ge=0)
        """Target classes, largest logit first; 0: in each step, the strongest wrong class."""
        overshoot: float = Field(0.05, ge=0)
        """Overshoot beyond the linearised boundary, as a share of the step."""

    config: Config
    norms = ("linf", "l2", "l1")

    def __init__(self, config: Config, threat: Threat) -> None:
        super().__init__(config, threat)
        whole, most = {"l2": (30, 0.4), "l1": (20, 0.4), "linf": (8, 0.2)}[threat.norm]
        self._gamma = config.gamma or min(whole / config.steps, most)

    def boundary(self, x: Tensor, rows: Rows, oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
        """That of the search target."""
        return toward_target(oracle, x, rows)

    def beyond(self, x: Tensor, loss: Tensor, grad: Tensor, found: Tensor) -> Tensor | None:
        """Beyond the linearised boundary, inside the box."""
        if x.device.type == "cpu" and found.all():
            return None
        step = toward(x.flatten(1)[None], grad.flatten(1), -loss[None], self.threat.norm)[0].view_as(x)
        return step.mul_(1 + self.config.overshoot).add_(x).clamp_(0, 1)
