"""Who sees less should not find more."""

from __future__ import annotations

from advkit.attacks.attack import ATTACKS
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

OF_ALL, OF_TRIED = 0.02, 0.25
"""Shares of all images, and of those that were left to it, which a black box may break. A few near the
boundary fall to it on sound models too."""


@check(
    "black-box",
    rank=SYMPTOM,
    summary="images that stood all attacks with gradients, and fell to one without",
    source="Athalye et al. 2018, section 3.1",
)
def black_box(evidence: Evidence) -> Doubt | str | None:
    """Reads the verdicts, where attacks without gradients came after attacks with."""
    cascade = evidence.cascade
    sighted = {stage.name for stage in evidence.gradient_stages}
    unseeing = {s.name for s in evidence.stages if ATTACKS.get(s.attack).access != "gradients"}
    stood, by = 0, []
    for index in cascade.correct.nonzero()[:, 0].tolist():
        tried = cascade.tried(cascade.ids[index])
        blind = next((place for place, entry in enumerate(tried) if entry.stage in unseeing), None)
        if blind is None or not any(entry.stage in sighted for entry in tried[:blind]):
            continue
        stood += 1
        if tried[-1].broken and tried[-1].stage in unseeing:
            by.append(tried[-1].stage)
    if not stood:
        return None
    names = ", ".join(dict.fromkeys(by))
    detail = f"{len(by)} of {stood} images that stood attacks with gradients fell without any"
    if len(by) <= max(1, min(OF_ALL * len(cascade.images), OF_TRIED * stood)):
        return detail
    return Doubt(f"{detail} (to {names}): the gradients mislead", evidence.remedy)
