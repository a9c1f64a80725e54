"""Gradients beside finite differences, and beside each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.losses.margin import margin
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.evaluation.gradient_trace import size_of

TINY = 1e-5
"""Change of every pixel that seldom crosses a discontinuity, but is visible in float32 in a smooth model."""
NEAR = 1e-3
"""Change of every pixel for which a smooth model is about linear; a quarter of an 8-bit level."""
FAR = 0.25
"""Change of every pixel that changes any model's logits."""
POINTS, RADIUS = 5, 0.25
"""Random points at which gradients are compared with each other, and how far off, in units of eps."""
RESOLVED = 1e-4
"""A change by this share of the largest logit is above the rounding of float32."""


@dataclass(frozen=True)
class Differences:
    """Comparison of gradient and finite differences at some images."""

    silent: Tensor
    """(R,) bool: the gradient is zero although the logits change."""
    stepped: Tensor
    """(R,) bool: the logits change under a large perturbation, and not at all under a tiny one."""
    wrong: Tensor
    """(R,) bool: the margin rises by less than a tenth of what the gradient predicts."""

    def __len__(self) -> int:
        return len(self.silent)

    @property
    def cut(self) -> bool:
        """Whether the gradient is zero at more than a tenth of the images."""
        return int(self.silent.sum()) > 0.1 * len(self)

    @property
    def astray(self) -> bool:
        """Whether gradient and differences disagree at more than a quarter of the images."""
        return int((self.wrong | self.stepped).sum()) > 0.25 * len(self)


def differences(oracle: Oracle, x: Tensor, rows: Rows, seed: int) -> Differences:
    """Compares the margin's gradient with finite differences, by four forward passes and one backward pass.

    Args:
        oracle: on the module that the attacks search on.
        x: (R, C, H, W) images.
        rows: their labels and ids.
    """
    value, grad, logits = oracle.loss_and_grad(x, rows, margin)
    sign = (rng.uniform(rng.keys(seed, "checks/differences", rows.sample), x.shape[1:]) - 0.5).sign()
    near, far = (oracle.logits((x + size * sign).clamp(0, 1)) for size in (TINY, FAR))
    ahead = (x + NEAR * grad.sign()).clamp(0, 1)
    predicted = (grad * (ahead - x)).flatten(1).sum(1)
    actual = margin(oracle.logits(ahead), rows.label, None) - value
    changes = (far != logits).any(1)
    return Differences(
        silent=changes & (size_of(grad) == 0),
        stepped=changes & (near == logits).all(1),
        wrong=(predicted > RESOLVED * logits.abs().amax(1)) & (actual < predicted / 10),
    )


def agreement(oracle: Oracle, x: Tensor, rows: Rows, seed: int) -> Tensor:
    """(R,) mean cosine of two gradients of the margin, at random points around an image; 1 where all of them
    vanish."""
    near = Threat(oracle.threat.norm, RADIUS * oracle.threat.eps)
    directions = []
    for number in range(POINTS):
        point = near.sample(x, rng.keys(seed, "checks/agreement", rows.sample, number))
        directions.append(normalize(oracle.loss_and_grad(point, rows, margin)[1].flatten(1), dim=1))
    sizes = torch.stack(directions).sum(0).square().sum(1)
    cosine = (sizes - POINTS) / (POINTS * (POINTS - 1))
    return torch.where(sizes > 0, cosine, 1.0).nan_to_num(1.0)
