"""Objectives for randomized smoothing: noisy images, and attacks on the smoothed classifier."""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from advkit.attacks.engine.oracle import query
from advkit.attacks.loss import picked
from advkit.core import rng
from advkit.core.config import Fraction
from advkit.core.threat import Threat
from advkit.models.model import evaluation_mode
from advkit.training.objective import Batch, Objective, Passes, Smoothing, objective


def differences(logits: Tensor) -> tuple[Tensor, Tensor]:
    """How the outputs on noisy copies of an image differ, averaged over the images, in nats (Jeong and Shin,
    NeurIPS 2020, section 3).

    Args:
        logits: (M, N, K) of M copies of N images.

    Returns:
        (mean over the copies of KL(mean output || output), entropy of the mean output); both scalars.
    """
    logs = log_softmax(logits, 2)
    mean = logs.exp().mean(0)
    known = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    return (mean * (known - logs)).sum(2).mean(), -(mean * known).sum(1).mean()


CHECKED = 8
"""Noisy copies of each held-out image by which checkpoints are compared."""


@objective(
    "noise",
    summary="cross-entropy on images with Gaussian noise, for randomised smoothing",
    source="Cohen et al., ICML 2019; with consistency: Jeong and Shin, NeurIPS 2020",
)
class NoiseTraining(Objective):
    """The noise is not clipped to [0, 1], as in the evaluation of a smoothed classifier.

    With ``consistency``, a regulariser makes the outputs on several noisy copies of an image agree.
    """

    class Config(Smoothing):
        sigma: Fraction = Field(0.25, gt=0)
        """Standard deviation of the noise, for pixels in [0, 1]; smooth with the same."""
        copies: int = Field(1, ge=1)
        """Noisy copies of each image in an update."""
        consistency: float = Field(0.0, ge=0)
        """Weight of the difference between the copies' outputs, lambda in the paper (which uses 2 copies
        and takes 10 at sigma 0.25 and 5 at larger ones on MNIST, 5 to 20 elsewhere); 0 for none."""
        entropy: float = Field(0.5, ge=0)
        """Beside it, weight of the entropy of their mean output, eta in the paper."""
        consistency_warmup: Fraction = Field(0.0, ge=0, le=1)
        """Share of the training over which both weights grow from 0 to their full size."""

        @model_validator(mode="after")
        def _something_to_compare(self) -> NoiseTraining.Config:
            if self.consistency and self.copies < 2:
                raise ValueError("consistency compares noisy copies of an image; take copies=2 or more")
            return self

    config: Config
    needs_threat = False
    criterion = "noisy"
    advice = "It is meant for smoothing: advkit smooth certifies its robustness then."
    judges = ("advkit smooth --model {} --n 50",)

    @property
    def passes(self) -> Passes:
        """One each way for each copy."""
        return Passes(self.config.copies, self.config.copies)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy (and consistency), and the logits on the first noisy copy."""
        return self.under(model, x, self.noise(x, batch), y, batch)

    def noise(self, x: Tensor, batch: Batch) -> Tensor:
        """(M * N, C, H, W) for M copies of the images (N, C, H, W), one copy of all after the other."""
        key = rng.keys(batch.seed, "noise", batch.ids, batch.step)
        drawn = [rng.normal(rng.step(key, number), x.shape[1:]) for number in range(self.config.copies)]
        return self.config.sigma * torch.cat(drawn)

    def under(
        self, model: nn.Module, x: Tensor, noise: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """`loss` with that noise."""
        config, copies = self.config, self.config.copies
        logits = model(x.repeat(copies, 1, 1, 1) + noise)
        loss = cross_entropy(logits, y.repeat(copies), label_smoothing=config.label_smoothing)
        logits = logits.view(copies, *y.shape, -1)
        if config.consistency:
            apart, entropy = differences(logits)
            added = config.consistency * apart + config.entropy * entropy
            loss = loss + batch.growth(config.consistency_warmup) * added
        return loss, logits[0]

    def measure(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Share of each image's noisy copies that are classified correctly: PGD does not measure a model that
        is to be smoothed."""
        key = rng.keys(batch.seed, "held-out noise", batch.ids)
        found = torch.zeros_like(y)
        for number in range(CHECKED):
            noise = rng.normal(rng.step(key, number), x.shape[1:])
            found += model(torch.add(x, noise, alpha=self.config.sigma)).argmax(1) == y
        return found / CHECKED


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
