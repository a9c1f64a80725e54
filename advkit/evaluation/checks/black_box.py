"""A black-box attack should not find more than gradient attacks."""

from __future__ import annotations

from advkit.attacks.attack import ATTACKS
from advkit.evaluation.check import SYMPTOM, Doubt, check
from advkit.evaluation.evidence import Evidence

OF_ALL, OF_TRIED = 0.02, 0.25
"""Shares of all images, and of those that it attacked, which a black-box attack may break. On sound models,
too, it breaks a few near the boundary."""


@check(
    "black-box",
    rank=SYMPTOM,
    summary="images that gradient attacks did not break, and a black-box attack did",
    source="Athalye et al. 2018, section 3.1",
)
def black_box(evidence: Evidence) -> Doubt | str | None:
    """Reads the verdicts, if black-box attacks ran after gradient attacks."""
    cascade = evidence.cascade
    white_box = {stage.name for stage in evidence.gradient_stages}
    without_gradients = {s.name for s in evidence.stages if ATTACKS.get(s.attack).access != "gradients"}
    attacked, by = 0, []
    for index in cascade.correct.nonzero()[:, 0].tolist():
        tried = cascade.tried(cascade.ids[index])
        blind = next((place for place, entry in enumerate(tried) if entry.stage in without_gradients), None)
        if blind is None or not any(entry.stage in white_box for entry in tried[:blind]):
            continue
        attacked += 1
        if tried[-1].broken and tried[-1].stage in without_gradients:
            by.append(tried[-1].stage)
    if not attacked:
        return None
    names = ", ".join(dict.fromkeys(by))
    detail = f"a black-box attack broke {len(by)} of {attacked} images that gradient attacks had not broken"
    if not evidence.robust or len(by) <= max(1, min(OF_ALL * len(cascade.images), OF_TRIED * attacked)):
        return detail
    remedy = evidence.remedy  # stronger attacks with the same gradients are none
    if remedy == evidence.harder:
        remedy = evidence.without_gradients
    return Doubt(f"{detail} ({names}): the gradients are misleading", remedy)
