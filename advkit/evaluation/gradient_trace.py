"""Gradient traces: losses and gradients along the steps of an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle, Transform
from advkit.attacks.engine.search import Search
from advkit.attacks.loss import AttackLoss, margin
from advkit.evaluation.result import Stage

FAINT = 2.0**-20
"""A gradient this much smaller than the others consists of float32 rounding errors."""


def size_of(grad: Tensor) -> Tensor:
    """(R,) largest entry of each row; unlike a norm it does not underflow. Infinity in place of NaN."""
    return grad.abs().flatten(1).amax(1).nan_to_num(torch.inf, torch.inf, torch.inf)


class RecordingOracle(Oracle):
    """An oracle that records the sizes of the gradients, and the losses."""

    sizes: list[Tensor]
    """(R,) largest entries of the gradients, one tensor per query."""
    values: list[Tensor]
    """(R,) losses, one tensor per query."""
    loss: AttackLoss | None = None
    """The loss that the attack maximises."""

    def loss_and_grad(
        self, x: Tensor, rows: Rows, loss: AttackLoss, through: Transform | None = None, samples: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Oracle.loss_and_grad`."""
        values, grad, logits = super().loss_and_grad(x, rows, loss, through, samples)
        self.loss = loss  # the last one: an attack may begin with another
        self.values.append(values)
        self.sizes.append(size_of(grad))
        return values, grad, logits

    def jacobian(self, x: Tensor, outputs: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """As `Oracle.jacobian`."""
        values, grads, logits = super().jacobian(x, outputs)
        self.sizes.append(size_of(grads))
        return values, grads, logits


@dataclass(frozen=True)
class GradientTrace:
    """The course of one attack on some images."""

    stage: Stage
    loss: AttackLoss | None
    """The loss that it maximises, if it is a single one."""
    clean: Tensor
    """(R,) sizes of the gradients at the clean images."""
    margin_clean: Tensor
    """(R,) sizes of the margin's gradients there."""
    sizes: Tensor
    """(T, R) sizes along the attack."""
    before: Tensor
    """(R,) loss at the starting point."""
    after: Tensor
    """(R,) loss at the last point."""

    def dead(self, sizes: Tensor) -> Tensor:
        """Which sizes are zero, infinite, or negligible compared with the median."""
        usual = torch.cat([self.clean[None], self.sizes])
        alive = usual[(usual > 0) & usual.isfinite()]
        least = FAINT * alive.median() if len(alive) else torch.inf
        return (sizes <= least) | ~sizes.isfinite() | (sizes == 0)

    @property
    def blind(self) -> Tensor:
        """(R,) bool: the gradient vanishes in at least half of the steps."""
        return self.dead(self.sizes).float().mean(0) >= 0.5

    @property
    def risen(self) -> Tensor:
        """(R,) bool: the loss is larger at the end than at the start."""
        return self.after > self.before + 1e-6 * self.before.abs().clamp(max=1)


def trace(stage: Stage, search: Search, chosen: Sequence[int], steps: int) -> GradientTrace | None:
    """Traces ``search``, whose oracle is a `RecordingOracle`, on the rows ``chosen`` of its data; None if the
    attack uses no gradient in its first steps."""
    attack, oracle = search.attack, search.oracle
    assert isinstance(oracle, RecordingOracle)
    oracle.sizes, oracle.values = [], []
    rows = search.rows([(0, index) for index in chosen])
    state = attack.start(rows)
    first = state.x.clone()  # an attack may work in place
    for _ in range(min(attack.steps, steps)):
        state = attack.step(state, oracle)
        state.iteration = state.iteration + 1
    if not oracle.sizes:
        return None
    last, sizes, loss = search.oracle.threat.project(state.x, rows.x0), torch.stack(oracle.sizes), oracle.loss
    climbed = loss or margin
    _, grads, _ = oracle.jacobian(
        rows.x0,
        lambda z: torch.stack([climbed(z, rows.label, rows.search_target), margin(z, rows.label, None)], 1),
    )
    before, after = (climbed(oracle.logits(x), rows.label, rows.search_target) for x in (first, last))
    return GradientTrace(
        stage,
        loss,
        clean=size_of(grads[:, 0]),
        margin_clean=size_of(grads[:, 1]),
        sizes=sizes,
        before=before,
        after=after,
    )
