"""Adversarial training of a smoothed classifier."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from advkit.attacks.engine.oracle import query
from advkit.attacks.loss import picked
from advkit.core.config import Fraction
from advkit.core.threat import Threat
from advkit.models.model import evaluation_mode
from advkit.training.objective import Batch, Passes, objective
from advkit.training.objectives.noise import NoiseTraining


def unlikely(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) minus the logarithm of the mean probability of the classes y, by logits (M, N, K) on M copies."""
    log_sum = torch.logsumexp(log_softmax(logits.float(), 2), 0)
    return math.log(len(logits)) - picked(log_sum, y)


@objective(
    "smooth-adv",
    summary="noise on PGD examples of the smoothed classifier, for randomised smoothing (SmoothAdv)",
    source="Salman et al., Robust Deep Learning via Adversarially Trained Smoothed Classifiers, NeurIPS 2019",
)
class SmoothAdvTraining(NoiseTraining):
    """Section 2: an image goes up minus the logarithm of its class's mean probability over the noisy copies,
    in l2; the update is that of `noise` on the image that was reached, under the same noise."""

    class Config(NoiseTraining.Config):
        """Parameters."""

        radius: float = Field(1.0, gt=0)
        """How far an image may be moved in l2, for pixels in [0, 1]; the authors use 0.25 to 2."""
        steps: int = Field(2, ge=1)
        """Gradient steps, each of 2 * radius / steps."""
        radius_warmup: Fraction = Field(0.1, ge=0, le=1)
        """Share of the training over which the radius grows from 0 to its full size."""

    config: Config

    @property
    def passes(self) -> Passes:
        """One each way for each copy, in each step and in the update."""
        passes = self.config.copies * (self.config.steps + 1)
        return Passes(passes, passes)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """That of `noise` on the moved images, and the logits on the first noisy copy of each."""
        noise = self.noise(x, batch)
        threat = Threat("l2", self.config.radius * batch.growth(self.config.radius_warmup))
        return self.under(model, self.moved(model, x, noise, y, threat), noise, y, batch)

    def moved(self, model: nn.Module, x: Tensor, noise: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """(N, C, H, W) inside the threat model, found in eval mode and from the images themselves."""
        copies, size = self.config.copies, 2 * threat.eps / self.config.steps
        at = x
        with evaluation_mode(model):
            for _ in range(self.config.steps):
                at = at.detach().requires_grad_(True)
                logits = query(model, at.repeat(copies, 1, 1, 1) + noise).view(copies, len(x), -1)
                (slope,) = torch.autograd.grad(unlikely(logits, y).sum(), at)
                at = threat.project(at.detach() + size * threat.ascent(slope), x)
        return at
