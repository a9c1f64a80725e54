"""Distances between the features of generated and of real images."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.gan.metric import Comparison, Figure, K, metric
from advkit.gan.neighbours import covered, inside


@metric(
    "fid",
    Figure("fid", "FID", "lower"),
    summary="Fréchet distance of two Gaussians fitted to the judge's features",
    source="Heusel et al. 2017, eq. 6, with the judge in the place of Inception",
    rank=10,
)
def fid(comparison: Comparison) -> dict[str, float]:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of the means and covariances of both sets of features."""
    return {"fid": frechet(comparison.generated.features, comparison.real.features)}


def frechet(a: Tensor, b: Tensor) -> float:
    """Of features (N, D) and (M, D), in float64.

    tr (C C')^(1/2) is the sum of the singular values of C^(1/2) C'^(1/2), since C C' has the eigenvalues of
    C^(1/2) C' C^(1/2): no square root of a matrix that is not symmetric, and nothing imaginary to drop.
    """
    (mean_a, root_a), (mean_b, root_b) = _gaussian(a), _gaussian(b)
    traces = (root_a**2).sum() + (root_b**2).sum() - 2 * torch.linalg.svdvals(root_a @ root_b).sum()
    return float(((mean_a - mean_b) ** 2).sum() + traces.clamp(min=0))


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and the symmetric square root (D, D) of the covariance."""
    features = features.double()
    values, vectors = torch.linalg.eigh(torch.cov(features.T))
    return features.mean(0), (vectors * values.clamp(min=0).sqrt()) @ vectors.T


ROWS = 1000
"""Rows of a kernel matrix held at a time."""


@metric(
    "kid",
    Figure("kid", "KID", "lower", ".4f"),
    summary="squared maximum mean discrepancy of the judge's features under a cubic kernel",
    source="Binkowski et al. 2018, section 4, over all images instead of random subsets",
    rank=20,
)
def kid(comparison: Comparison) -> dict[str, float]:
    """The unbiased estimate under (x . y / D + 1)^3, which may be slightly below 0.

    All images are one subset, so nothing is drawn, and the spread is the least that they allow.
    """
    return {"kid": discrepancy(comparison.generated.features, comparison.real.features)}


def discrepancy(a: Tensor, b: Tensor) -> float:
    """Of features (N, D) and (M, D), N and M at least 2, in float64: the sums nearly cancel."""
    a, b, n, m = a.double(), b.double(), len(a), len(b)
    within = (_sum(a, a) - _diagonal(a)) / (n * (n - 1)) + (_sum(b, b) - _diagonal(b)) / (m * (m - 1))
    return within - 2 * _sum(a, b) / (n * m)


def _sum(a: Tensor, b: Tensor) -> float:
    """Of the kernel over all pairs."""
    turned = b.T / a.shape[1]
    return sum(float((part @ turned).add_(1).pow_(3).sum()) for part in a.split(ROWS))


def _diagonal(a: Tensor) -> float:
    return float(((a**2).sum(1) / a.shape[1] + 1).pow(3).sum())


@metric(
    "precision-recall",
    Figure("precision", "precision", "higher"),
    Figure("recall", "recall", "higher"),
    summary="precision and recall by k-nearest neighbours of the judge's features (k = 5)",
    source="Kynkäänniemi et al. 2019, eq. 1 and 2",
    rank=30,
)
def precision_recall(comparison: Comparison) -> dict[str, float]:
    """Near: inside a ball around an image of the other kind, as large as the distance to the fifth nearest
    image of that kind."""
    generated, real = comparison.generated, comparison.real
    precise = inside(generated.features, real.features, real.balls) > 0
    recalled = inside(real.features, generated.features, generated.balls) > 0
    return {"precision": float(precise.float().mean()), "recall": float(recalled.float().mean())}


@metric(
    "density-coverage",
    Figure("density", "density", "higher"),
    Figure("coverage", "coverage", "higher"),
    summary="density and coverage: real k-NN balls that contain generated images (k = 5)",
    source="Naeem et al. 2020, eq. 8 and 9",
    rank=40,
)
def density_coverage(comparison: Comparison) -> dict[str, float]:
    """Like precision and recall, but all balls are around real images, so that a few strange generated ones
    do not make all of them large. Density may be above 1 where images crowd in the middle."""
    generated, real = comparison.generated.features, comparison.real.features
    balls = comparison.real.balls
    density = float(inside(generated, real, balls).float().mean()) / K
    return {"density": density, "coverage": covered(real, balls, generated)}
