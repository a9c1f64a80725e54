"""The kernel distance."""

from __future__ import annotations

from torch import Tensor

from advkit.gan.metric import Comparison, Figure, metric

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
    """Of features (N, D) and (M, D), N and M at least 2."""
    n, m = len(a), len(b)
    within = (_sum(a, a) - _diagonal(a)) / (n * (n - 1)) + (_sum(b, b) - _diagonal(b)) / (m * (m - 1))
    return within - 2 * _sum(a, b) / (n * m)


def _sum(a: Tensor, b: Tensor) -> float:
    """Of the kernel over all pairs; products in float32, sums in float64."""
    turned = b.T / a.shape[1]
    return sum(float((part @ turned).add_(1).pow_(3).sum(1).double().sum()) for part in a.split(ROWS))


def _diagonal(a: Tensor) -> float:
    return float(((a**2).sum(1) / a.shape[1] + 1).pow(3).double().sum())
