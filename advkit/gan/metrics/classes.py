"""How often each class is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.gan.metric import Comparison, Figure, NotApplicableError, metric


@metric(
    "class-histogram",
    Figure("class_kl", "KL of classes", "lower", ".4f"),
    summary="Kullback-Leibler divergence of the predicted classes from those of the training set",
    source="Srivastava et al. 2017, section 4.1",
    rank=50,
)
def class_histogram(comparison: Comparison) -> dict[str, float]:
    """Sum of p log(p / q) in nats, p being the share of a class in the generated images and q in the training
    split. Even perfect samples have about (classes - 1) / (2 n)."""
    return {"class_kl": divergence(shares(comparison), comparison.shares)}


@metric(
    "modes",
    Figure("modes", "modes", "higher", ".0f"),
    Figure("mode_kl", "KL of modes", "lower", ".4f"),
    summary="number of modes (classes) found, and the divergence from a uniform distribution",
    source="Metz et al. 2017, section 3.3; Lin et al. 2018 (PacGAN), section 4.1",
    rank=60,
)
def modes(comparison: Comparison) -> dict[str, float]:
    """Of stacked digits, 1,000. The divergence is from equal shares, as in PacGAN's tables; the digits of
    MNIST are not quite equally frequent, which the floor shows."""
    found = shares(comparison)
    even = torch.full_like(found, 1 / len(found))
    return {"modes": float((found > 0).sum()), "mode_kl": divergence(found, even)}


def shares(comparison: Comparison) -> Tensor:
    """(K,) float64: how often the judge sees each class among the generated images."""
    if not comparison.digits:
        raise NotApplicableError("the judge cannot read these images")
    seen = comparison.generated.seen
    return torch.bincount(seen, minlength=comparison.classes).double() / len(seen)


def divergence(p: Tensor, q: Tensor) -> float:
    """Kullback-Leibler divergence of shares ``p`` (K,) from ``q`` (K,), in nats."""
    there = p > 0
    return float((p[there] * (p[there] / q[there].clamp(min=1e-12)).log()).sum())
