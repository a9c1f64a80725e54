"""Density and coverage."""

from __future__ import annotations

from advkit.gan.metric import Comparison, Figure, K, metric
from advkit.gan.neighbours import covered, inside


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
