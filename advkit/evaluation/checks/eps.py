"""More may be changed, more must fall."""

from __future__ import annotations

from itertools import pairwise

from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence


@check(
    "eps",
    rank=SYMPTOM,
    summary="images that fall at a smaller eps and not at a larger one",
    source="Athalye et al. 2018, section 3.1",
)
def eps(evidence: Evidence) -> Doubt | str | None:
    """The last attack with gradients, shortened, at half, twice and four times the eps; at the eps itself
    all of these images stand."""
    stage = evidence.last
    if stage is None or not evidence.standing:
        return None
    threat, chosen = evidence.cascade.threat, evidence.nearest[: evidence.looked_at // 2]
    count = len(chosen)
    stands = {1.0: count}
    for factor in (0.5, 2.0, 4.0):
        if threat.norm == "linf" and threat.eps * factor > 1:
            continue
        try:
            attack = evidence.shortened(stage, Threat(threat.norm, threat.eps * factor))
        except ConfigError:  # a step size or a budget of its own that does not fit
            continue
        found = evidence.search(f"eps/{factor}", attack, chosen)
        stands[factor] = sum(not each.broken for each in found)
    order = sorted(stands)
    listed = ", ".join(f"{stands[factor]} at {factor:g} eps" for factor in order)
    rise = max((stands[b] - stands[a] for a, b in pairwise(order)), default=0)
    detail = f"of {count} images that stand, with {stage.name} stand {listed}"
    if rise <= max(1, 0.1 * count) and stands.get(0.5, count) == count:
        return detail
    return Doubt(f"{detail}: accuracy rises with eps", evidence.remedy)
