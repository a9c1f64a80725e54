"""The fast adaptive boundary attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle, margin_of
from advkit.attacks.engine.record import column
from advkit.attacks.parts.boundary import nearest, toward, toward_target
from advkit.core import rng
from advkit.core.config import StrictModel

PROBES = 3
"""Points evaluated in the end between the original and the nearest success."""
SAFETY = 0.1
"""Distance of a probe from the estimated zero of the margin, as a share of the way to the success."""


@dataclass
class FABState(State):
    """The nearest success of each row, and the search between it and the original."""

    x_best: Tensor
    """(R, C, H, W) the nearest success; before any, the original."""
    best: Tensor
    """(R,) its distance; before any, infinite."""
    margin_best: Tensor
    """(R,) its margin."""
    low: Tensor
    """(R,) largest share of the way from the original to ``x_best`` without success."""
    margin_low: Tensor
    """(R,) margin there."""
    probe: Tensor
    """(R,) share of that way at ``x``; 1 while the row is not probing."""


class FABConfig(StrictModel):
    """Parameters of both forms of the attack."""

    steps: int = Field(100, ge=1)
    """Steps toward the boundary, per start and target; four more evaluate the last point and the probes."""
    restarts: int = Field(1, ge=1)
    """Starts per image and target: the original, then random points half way to the budget."""
    alpha_max: float = Field(0.1, ge=0, le=1)
    """Largest weight of the original's own projection."""
    eta: float = Field(1.05, ge=1)
    """Step in units of the way to the boundary; above 1 it overshoots."""
    beta: float = Field(0.9, gt=0, lt=1)
    """From a success, the next step starts at this share of its change."""


@attack(
    "fab",
    summary="projections onto the nearest linearised boundary, near the original",
    source="Croce and Hein, ICML 2020, arXiv:1907.02044",
)
class FAB(Attack[FABState]):
    """Croce and Hein, ICML 2020, algorithm 1.

    The reference steps back from a success and differentiates there, with two forward passes a step; this one
    makes one. From the nearest success so far it continues with the gradient at the success itself. From a
    success that is not nearer it steps back and differentiates there in the next step.
    """

    class Config(FABConfig):
        classes: int | None = Field(None, ge=1)
        """Wrong classes considered in each step, those of the largest logits; None: all."""

    config: FABConfig
    norms = ("linf", "l2", "l1")
    minimal = True

    @property
    def steps(self) -> int:
        """The last step's point and the probes are evaluated too."""
        return self.config.steps + 1 + PROBES

    def boundary(self, x: Tensor, rows: Rows, oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
        """(signed distance beyond the boundary (R,), in logits, its gradient (R, C, H, W), logits)."""
        return nearest(oracle, x, rows, self.threat.norm, self.config.classes)  # type: ignore[attr-defined]

    def start(self, rows: Rows) -> FABState:
        """The original; later starts are random points at half the budget."""
        targets = 1 if rows.target_class is not None else max(1, min(self.targets, rows.clean.shape[1] - 1))
        first = rows.variant < targets
        iteration = rows.label.new_zeros(len(rows))
        best = rows.x0.new_full((len(rows),), torch.inf)
        known = rows.clean.shape[1] > 0
        return FABState(
            rows,
            torch.where(column(first, rows.x0), rows.x0, self._noisy(rows)),
            iteration,
            x_best=rows.x0,
            best=best,
            margin_best=torch.zeros_like(best),
            low=torch.zeros_like(best),
            margin_low=margin_of(rows.clean, rows) if known else torch.full_like(best, -1.0),
            probe=torch.ones_like(best),
        )

    def _noisy(self, rows: Rows) -> Tensor:
        shape = rows.x0.shape[1:]
        noise = rng.normal(rows.key, shape)
        if self.threat.norm == "linf":
            noise = rng.uniform(rows.key, shape).mul_(2).sub_(1)
        length = self.threat.distance(noise, torch.zeros_like(noise))
        return noise.mul_(column(self.threat.eps / 2 / length, noise)).add_(rows.x0).clamp_(0, 1)

    def step(self, state: FABState, oracle: Oracle) -> FABState:
        """Evaluates ``x`` and moves toward the boundary, or to the next probe in the end."""
        rows, x = state.rows, state.x
        value, grad, logits = self.boundary(x, rows, oracle)
        margin = margin_of(logits, rows)
        won = margin > 0
        distance = self.threat.distance(x, rows.x0)
        nearer = won & (distance < state.best)
        best = torch.where(nearer, distance, state.best)
        x_best = torch.where(column(nearer, x), x, state.x_best)
        margin_best = torch.where(nearer, margin, state.margin_best)
        missed = (state.probe < 1) & ~won
        low = torch.where(missed, state.probe, torch.where(nearer, state.low / state.probe, state.low))
        margin_low = torch.where(missed, margin, state.margin_low)

        probing = (state.iteration >= self.config.steps) & (best < torch.inf)
        zero = margin_low.clamp(max=0) / (margin_low - margin_best).clamp(max=-1e-12)
        share = low + (1 - low) * (zero + SAFETY * (1 - zero))
        probe = torch.where(probing, share, torch.ones_like(share))
        probed = rows.x0 + column(share, x) * (x_best - rows.x0)
        ahead = self._toward_boundary(x, rows.x0, value, grad, nearer)
        back = torch.lerp(rows.x0, x, self.config.beta)
        moved = torch.where(column(won & ~nearer, x), back, ahead)
        return FABState(
            rows,
            torch.where(column(probing, x), probed, moved),
            state.iteration,
            x_best=x_best,
            best=best,
            margin_best=margin_best,
            low=low,
            margin_low=margin_low,
            probe=probe,
        )

    def _toward_boundary(self, x: Tensor, x0: Tensor, value: Tensor, grad: Tensor, back: Tensor) -> Tensor:
        """Equation 8: beyond the projection of ``x``, biased toward the projection of the original; rows that
        are ``back`` start from beta of their change."""
        config, norm = self.config, self.threat.norm
        change, w = (x - x0).flatten(1), grad.flatten(1)
        kept = torch.where(back, config.beta, 1.0)
        rise = (change * w).sum(1)  # the part of the value due to the change, if the model is linear
        points = torch.stack([x0.flatten(1) + change * kept[:, None], x0.flatten(1)])
        steps = toward(points, w, torch.stack([(1 - kept) * rise - value, rise - value]), norm)
        order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
        far, farther = torch.linalg.vector_norm(steps, order, dim=2).clamp(min=1e-8)
        alpha = (far / (far + farther)).clamp(max=config.alpha_max)[:, None]
        ahead = points.add_(steps, alpha=config.eta)
        return torch.lerp(ahead[0], ahead[1], alpha).clamp_(0, 1).view_as(x)


@attack(
    "fab-t",
    summary="targeted FAB, toward the wrong classes of the largest logits",
    source="Croce and Hein, ICML 2020, arXiv:2003.01690",
)
class FABT(FAB):
    """A step needs the gradient of one logit difference, where `FAB` needs those of all."""

    class Config(FABConfig):
        targets: int = Field(9, ge=0)
        """Target classes, largest logit first; 0: in each step, the strongest wrong class."""

    def boundary(self, x: Tensor, rows: Rows, oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
        """That of the search target."""
        return toward_target(oracle, x, rows)
