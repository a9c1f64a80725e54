"""Does the model change as its gradient says? Finite differences."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.losses.margin import margin
from advkit.core import rng
from advkit.evaluation.walk import size_of

TINY = 1e-5
"""Change of every pixel that seldom crosses a step, and that a model without steps answers in float32."""
NEAR = 1e-3
"""Change of every pixel so small that a smooth model answers in proportion; a quarter of an 8-bit level."""
FAR = 0.25
"""Change of every pixel that no model overlooks."""
RESOLVED = 1e-4
"""A change of this share of the largest logit stands out from the rounding of float32."""


@dataclass(frozen=True)
class Differences:
    """What was seen at some images."""

    silent: Tensor
    """(R,) bool: the gradient is zero, though the answers change."""
    stepped: Tensor
    """(R,) bool: the answers change far away, and not at all nearby."""
    wrong: Tensor
    """(R,) bool: the margin rises by less than a tenth of what the gradient promises."""

    def __len__(self) -> int:
        return len(self.silent)

    @property
    def cut(self) -> bool:
        """The gradient is zero at too many images to blame them."""
        return int(self.silent.sum()) > 0.1 * len(self)

    @property
    def astray(self) -> bool:
        """The gradient is that of something else."""
        return int((self.wrong | self.stepped).sum()) > 0.25 * len(self)


def differences(oracle: Oracle, x: Tensor, rows: Rows, seed: int) -> Differences:
    """Four passes forward and one backward.

    Args:
        oracle: the door to what is searched on.
        x: (R, C, H, W) images.
        rows: what is known of each.
        seed: random directions follow from it.
    """
    value, grad, logits = oracle.loss_and_grad(x, rows, margin)
    sign = (rng.uniform(rng.keys(seed, "checks/differences", rows.sample), x.shape[1:]) - 0.5).sign()
    near, far = (oracle.logits((x + size * sign).clamp(0, 1)) for size in (TINY, FAR))
    ahead = (x + NEAR * grad.sign()).clamp(0, 1)
    promised = (grad * (ahead - x)).flatten(1).sum(1)
    kept = margin(oracle.logits(ahead), rows.label, None) - value
    changes = (far != logits).any(1)
    return Differences(
        silent=changes & (size_of(grad) == 0),
        stepped=changes & (near == logits).all(1),
        wrong=(promised > RESOLVED * logits.abs().amax(1)) & (kept < promised / 10),
    )
