"""Gradients estimated from scores at antithetic pairs of points around the current one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import column, revise_
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.core import rng
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat


@dataclass
class PairState(State):
    """``x`` is one point of a pair."""

    centre: Tensor
    """(R, C, H, W) the point whose gradient is estimated."""
    noise: Tensor
    """(R, C, H, W) the direction of the pair."""
    first_loss: Tensor
    """(R,) loss at the first point of the pair."""
    total: Tensor
    """(R, C, H, W) sum of the directions, each weighted by the change of the loss along it."""
    moments: Tensor
    """(R, M, C, H, W) running means of the estimates (SPSA: and of their squares)."""


class PairConfig(StrictModel):
    """Parameters of all such attacks."""

    queries: int = Field(5000, ge=1)
    """Queries per start."""
    samples: int = Field(50, ge=2, multiple_of=2)
    """Points per estimate of the gradient, two for each direction."""
    restarts: int = Field(1, ge=1)
    """Starts per image, with other directions; later ones only where the earlier failed."""
    loss: str = "margin"
    """Loss to maximise (see `advkit ls attack-losses`)."""


class Antithetic(Attack[PairState]):
    """Queries points at plus and minus sigma along random directions; after ``samples`` of them, takes one
    step and queries the point there.

    Every query is inside the threat model, so that each may succeed. Where a point of a pair was projected,
    the estimate of a pixel shrinks but keeps its sign.
    """

    config: PairConfig
    norms = ("linf", "l2")
    access = "scores"
    moments: ClassVar[int] = 1
    """Number of running means."""

    def __init__(self, config: PairConfig, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(config.loss)

    @property
    @abstractmethod
    def sigma(self) -> float:
        """Distance of the points from the centre, in units of pixels, for each entry of a direction."""

    @abstractmethod
    def draw(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(R, *shape) directions, of variance 1 in each entry."""

    @abstractmethod
    def ascend(self, centre: Tensor, estimate: Tensor, moments: Tensor, number: Tensor) -> Tensor:
        """(R, C, H, W) the next centres, before projection; updates ``moments`` in place.

        Args:
            centre: (R, C, H, W) the points at which the gradient was estimated.
            estimate: (R, C, H, W) of the gradient, biased by projection.
            moments: (R, M, C, H, W) of the estimates so far.
            number: (R,) of the estimate, from 1.
        """

    def start(self, rows: Rows) -> PairState:
        """The first point of the first pair around the original."""
        noise = self.draw(rng.step(rows.key, 0), tuple(rows.x0.shape[1:]))
        return PairState(
            rows,
            self.threat.project_(rows.x0 + self.sigma * noise, rows.x0),
            rows.label.new_zeros(len(rows)),
            centre=rows.x0.clone(),
            noise=noise,
            first_loss=torch.zeros_like(rows.x0[:, 0, 0, 0]),
            total=torch.zeros_like(rows.x0),
            moments=torch.zeros_like(rows.x0)[:, None].repeat(1, self.moments, 1, 1, 1),
        )

    def step(self, state: PairState, oracle: Oracle) -> PairState:
        """Evaluates one point; ends the pair, and the estimate, where it was the last point."""
        rows, samples = state.rows, self.config.samples
        turn = state.iteration % (samples + 1)  # the last query is of the centre
        second, last = turn % 2 == 1, turn == samples
        complete = turn == samples - 1
        loss = self._loss(oracle.logits(state.x), rows.label, rows.search_target)
        change = torch.where(second, state.first_loss - loss, 0.0)
        state.total.addcmul_(state.noise, column(change, state.x))
        revise_(
            (state.centre, state.total, state.moments),
            complete,
            self._move,
            rows.x0,
            state.centre,
            state.total,
            state.moments,
            state.iteration // (samples + 1) + 1,
        )
        fresh = last | (second & ~complete)
        revise_((state.noise,), fresh, self._redraw, rng.step(rows.key, state.iteration + 1), state.x)
        side = torch.where(fresh, self.sigma, -self.sigma).masked_fill_(complete, 0.0)
        state.x = self.threat.project_(
            torch.addcmul(state.centre, state.noise, column(side, state.x)), rows.x0
        )
        state.first_loss = loss
        return state

    def _redraw(self, key: Tensor, x: Tensor) -> tuple[Tensor]:
        return (self.draw(key, tuple(x.shape[1:])),)

    def _move(
        self, x0: Tensor, centre: Tensor, total: Tensor, moments: Tensor, number: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        moments = moments.clone()
        moved = self.ascend(centre, total / (self.sigma * self.config.samples), moments, number)
        return self.threat.project_(moved, x0), torch.zeros_like(total), moments


@attack(
    "nes", summary="projected steps on gradients estimated from Gaussian pairs", source="Ilyas et al. 2018"
)
class NES(Antithetic):
    """Ilyas, Engstrom, Athalye and Lin, "Black-box Adversarial Attacks with Limited Queries and Information",
    ICML 2018: steps along the sign (linf) or the direction (l2) of a running mean of the estimates.
    """

    class Config(PairConfig):
        sigma: Fraction = Field(0.01, gt=0)
        """Standard deviation of the points around the current one, in units of pixels."""
        step_size: Fraction | None = Field(None, gt=0)
        """In units of pixels (l2: length of a step); by default a fifth of eps."""
        momentum: float = Field(0.9, ge=0, lt=1)
        """Share of the running mean that is kept from estimate to estimate."""

    config: Config

    @property
    def sigma(self) -> float:
        """As configured."""
        return self.config.sigma

    def draw(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Gaussian."""
        return rng.normal(key, shape)

    def ascend(self, centre: Tensor, estimate: Tensor, moments: Tensor, number: Tensor) -> Tensor:
        """One step of fixed size."""
        mean = moments[:, 0].mul_(self.config.momentum).add_(estimate, alpha=1 - self.config.momentum)
        size = self.config.step_size or self.threat.eps / 5
        return centre.add(self.threat.ascent(mean), alpha=size)


BETAS = (0.9, 0.999)


@attack("spsa", summary="Adam on gradients estimated from pairs of random signs", source="Uesato et al. 2018")
class SPSA(Antithetic):
    """Uesato, O'Donoghue, van den Oord and Kohli, "Adversarial Risk and the Dangers of Evaluating Against
    Weak Attacks", ICML 2018.
    """

    class Config(PairConfig):
        samples: int = Field(20, ge=2, multiple_of=2)
        """Points per estimate of the gradient, two for each direction."""
        sigma: Fraction = Field(0.01, gt=0)
        """Distance of each pixel of a point from the current one, in units of pixels."""
        step_size: Fraction | None = Field(None, gt=0)
        """Adam's, in units of pixels; by default a fifth of eps (l2: divided by the root of the
        number of pixels)."""

    config: Config
    moments: ClassVar[int] = 2

    @property
    def sigma(self) -> float:
        """As configured."""
        return self.config.sigma

    def draw(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Minus or plus one."""
        return rng.signs(key, shape)

    def ascend(self, centre: Tensor, estimate: Tensor, moments: Tensor, number: Tensor) -> Tensor:
        """One step of Adam."""
        first, second = BETAS
        mean = moments[:, 0].mul_(first).add_(estimate, alpha=1 - first)
        spread = moments[:, 1].mul_(second).addcmul_(estimate, estimate, value=1 - second)
        mean = mean / column(1 - first**number, mean)
        spread = spread / column(1 - second**number, mean)
        size = self.config.step_size or self.threat.eps / 5
        if self.config.step_size is None and self.threat.norm == "l2":
            size /= centre[0].numel() ** 0.5  # Adam moves every pixel by about its step size
        return centre.addcdiv(mean, spread.sqrt_().add_(1e-12), value=size)
