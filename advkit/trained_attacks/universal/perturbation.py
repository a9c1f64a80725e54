"""Universal perturbations (Moosavi-Dezfooli et al., CVPR 2017), trained by stochastic ascent (Shafahi et al.,
"Universal Adversarial Training", AAAI 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.attacks.engine.record import column
from advkit.core.threat import Threat
from advkit.models.card import Shape
from advkit.trained_attacks.universal.change import Change


class Perturbation(Change):
    """Added to every image, which is then clamped to [0, 1].

    Args:
        threat: norm (linf or l2) and budget.
        shape: of the images.
        rate: first step size, as a share of the budget.
    """

    def __init__(self, threat: Threat, shape: Shape, rate: float) -> None:
        self.threat, self.shape, self.rate = threat, shape, rate

    def start(self) -> Tensor:
        """Zero."""
        return torch.zeros(1, *self.shape)

    def apply(self, change: Tensor, x: Tensor, key: Tensor) -> Tensor:
        """The sum, inside [0, 1]; clamping only reduces the distance to the image."""
        return (x + change).clamp(0, 1)

    def ascend(self, change: Tensor, uphill: Tensor, share: float) -> Tensor:
        """The steepest step in the norm, then a projection into the budget."""
        return self.inside(change + self.rate * share * self.threat.eps * self.threat.ascent(uphill))

    def inside(self, change: Tensor) -> Tensor:
        """(N, C, H, W) the nearest perturbations within the budget."""
        if self.threat.norm == "linf":
            return change.clamp(-self.threat.eps, self.threat.eps)
        length = torch.linalg.vector_norm(change.flatten(1), dim=1).clamp(min=1e-12)
        return change * column((self.threat.eps / length).clamp(max=1), change)
