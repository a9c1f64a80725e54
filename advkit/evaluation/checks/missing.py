"""Attacks on a random sample of the survivors must not break any."""

from __future__ import annotations

from advkit.attacks.attack import ATTACKS
from advkit.evaluation.check import BLIND, Doubt, check
from advkit.evaluation.evidence import Evidence


@check(
    "missing",
    rank=BLIND,
    summary="robust images of a random sample that Square or a long gradient attack breaks",
    source="Clopper and Pearson 1934, for a sample without replacement",
)
def missing(evidence: Evidence) -> Doubt | str | None:
    """Reads what `advkit.evaluation.missing` found."""
    seen = evidence.cascade.missing
    if seen is None:
        return None
    drawn = f"{seen.hits} of {seen.sample} robust images, drawn at random from {seen.survivors}"
    left = f"at most {seen.points:.1f} points may be missing (95 %)"
    if not seen.hits:
        how = " with other random numbers, after they broke some and attacked all" if seen.looks > 1 else ""
        return f"{drawn}, are broken by long attacks{how}; {left}"
    if not evidence.robust:
        return f"long attacks broke {drawn}, and all others"
    blind = any(
        ATTACKS.get(stage.attack).access != "gradients" for stage in evidence.stages if stage.name in seen.by
    )
    said = f"long attacks broke {drawn}, and {seen.broken} of them all ({', '.join(seen.by)}); now {left}"
    return Doubt(said, evidence.without_gradients if blind else evidence.harder)
