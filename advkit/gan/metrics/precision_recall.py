"""Precision and recall of distributions."""

from __future__ import annotations

from advkit.gan.metric import Comparison, Figure, metric
from advkit.gan.neighbours import inside


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
