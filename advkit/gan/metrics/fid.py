"""The Fréchet distance."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.gan.metric import Comparison, Figure, metric


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
