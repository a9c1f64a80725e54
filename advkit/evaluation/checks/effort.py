"""An attack that is too weak: more steps, or the default attacks, still find successes."""

from __future__ import annotations

from typing import Any

from advkit.attacks.attack import Attack
from advkit.attacks.ensemble import ENSEMBLES
from advkit.attacks.perturb import make
from advkit.evaluation.check import BLIND, Doubt, check
from advkit.evaluation.evidence import Evidence
from advkit.evaluation.result import Stage

SHARE = 40
"""The check may use one part in this many of the attacks' passes."""
LEAST, MOST = 16, 64
"""Rows: images, times up to two target classes."""
TARGETS = 2
TOLERATED = 0.001
"""Share of the images, as `cascade` tolerates."""


@check(
    "effort",
    rank=BLIND,
    summary="robust images that the last gradient attack breaks from another start, or where no ensemble was "
    "run, that the first attacks of cascade break",
    source="Carlini et al. 2019, attacks must have converged",
    searches=("effort",),
)
def effort(evidence: Evidence) -> Doubt | str | None:
    """Attacks the robust images with the largest margins again."""
    if not evidence.robust:
        return None
    if not any(name in ENSEMBLES for name in evidence.attacks):
        return _against_default(evidence)
    stage = evidence.last
    if stage is None:
        return None
    attack, name = _more(evidence, stage)
    rows = min(max(evidence.cascade.passes // (SHARE * 2 * attack.steps), LEAST), MOST)
    found = evidence.search("effort", attack, evidence.robust[: rows // max(attack.targets, 1)])
    broken = sum(one.broken for one in found)
    detail = f"{broken} of the {len(found)} robust images with the largest margins are broken by {name}"
    if broken < 2:
        return detail
    return Doubt(detail, evidence.remedy)


def _against_default(evidence: Evidence) -> Doubt | str:
    """Attacks that were named one by one may be weak ones, however many steps they made."""
    cascade, chosen = evidence.cascade, evidence.robust[:MOST]
    kind, left = ENSEMBLES.get("cascade"), chosen
    first = kind(kind.Config()).stages(cascade.threat, cascade.clean.shape[1])[:2]
    for stage in first:
        if left:
            attack = make(stage.attack, cascade.threat, stage.parameters)
            left = [one.index for one in evidence.search(stage.key, attack, left) if not one.broken]
    broken, names = len(chosen) - len(left), " and ".join(stage.name for stage in first)
    detail = f"{broken} of the {len(chosen)} robust images with the largest margins are broken by {names}"
    if broken <= TOLERATED * len(cascade.images):
        return detail
    return Doubt(detail, evidence.remedy)


def _more(evidence: Evidence, stage: Stage) -> tuple[Attack[Any], str]:
    steps = stage.parameters.get("steps")
    if steps is None:
        chosen = {"steps": 20, "loss": evidence.loss_name}
        return make("pgd", evidence.cascade.threat, chosen), "20 steps of pgd"
    targets = min(TARGETS, stage.parameters.get("targets", TARGETS))
    affordable = evidence.cascade.passes // (SHARE * 2 * LEAST)
    more = 2 * steps if 2 * steps <= affordable else steps
    attack = evidence.repeated(stage, steps=more, restarts=1, targets=targets)
    return attack, f"{stage.name} with {more} step{'s' * (more > 1)} from another start"
