"""A larger eps must not raise the robust accuracy."""

from __future__ import annotations

from itertools import pairwise

from advkit.core.errors import ConfigError
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence


@check(
    "eps",
    rank=SYMPTOM,
    summary="images that are broken at a smaller eps and not at a larger one",
    source="Athalye et al. 2018, section 3.1",
    searches=("eps/0.5",),
)
def eps(evidence: Evidence) -> Doubt | str | None:
    """The last gradient attack, shortened, at half, twice and four times the eps; at the eps itself all of
    these images are robust."""
    stage = evidence.last
    if stage is None or not evidence.robust:
        return None
    threat, chosen = evidence.cascade.threat, evidence.nearest[: evidence.looked_at // 2]
    count = len(chosen)
    robust = {1.0: count}
    for factor in (0.5, 2.0, 4.0):
        try:
            attack = evidence.shortened(stage, threat.scaled(factor))
        except ConfigError:  # nothing is so large, or its own step size does not fit
            continue
        found = evidence.search(f"eps/{factor}", attack, chosen)
        robust[factor] = sum(not each.broken for each in found)
    order = sorted(robust)
    listed = ", ".join(f"{robust[factor]} at {factor:g} eps" for factor in order)
    rise = max((robust[b] - robust[a] for a, b in pairwise(order)), default=0)
    detail = f"of {count} robust images, {stage.name} leaves {listed}"
    if rise <= 1 and robust.get(0.5, count) == count:
        return detail
    return Doubt(f"{detail}: accuracy rises with eps", evidence.remedy)
