"""What sanity checks break counts as broken after `cascade`.

A robust accuracy is never above what our own attacks leave. The checks attack few of the robust images. Where
what they break is a reason for doubt, the same attack goes on to all the others. The doubt stays.

Where other attacks were chosen, the number is that of these attacks: there the checks only raise doubts.
"""

from __future__ import annotations

from collections.abc import Sequence

from advkit.attacks.attack import ATTACKS
from advkit.attacks.ensemble import Stage
from advkit.core.progress import Progress
from advkit.evaluation import result
from advkit.evaluation.check import CHECKS, run_checks
from advkit.evaluation.evidence import Evidence

PREFIX = "check/"
"""What the names of its stages begin with."""


def stage_names() -> list[str]:
    """Of all stages that it may add."""
    return [f"{PREFIX}{name}" for entry in CHECKS for name in entry.facts["searches"]]


def checked(
    evidence: Evidence, progress: Progress
) -> tuple[Evidence, tuple[result.Check, ...], tuple[result.Stage, ...]]:
    """Runs the checks: the evidence by the latest verdicts, what they found, and the stages that they add."""
    found = run_checks(evidence, progress)
    late = _count(evidence, found)
    if late and not evidence.cascade.undecided.any():  # then no robust image is left to doubt
        evidence = evidence.renewed()
        found = run_checks(evidence, progress)
    return evidence, found, late


def _count(evidence: Evidence, checks: Sequence[result.Check]) -> tuple[result.Stage, ...]:
    """Records what the searches of the checks broke, and goes on with those of the checks that doubt."""
    if "cascade" not in evidence.attacks:
        return ()
    cascade = evidence.cascade
    doubting = {check.name for check in checks if check.verdict == "doubt"}
    done = []
    for name, attack, found in evidence.searches:
        check = name.partition("/")[0]
        counting: tuple[str, ...] = CHECKS.entry(check).facts["searches"] if check in CHECKS else ()
        found = [one for one in found if cascade.undecided[one.index]]
        if name not in counting or not any(one.broken for one in found):
            continue
        registered = next(entry.name for entry in ATTACKS if entry.thing is type(attack))
        given, key = attack.config.model_dump(), f"checks/{name}"
        stage = Stage(f"{PREFIX}{name}", registered, given, precision="float32", key=key)
        entries = cascade.adopt(stage, found)
        if check in doubting and name == counting[-1] and attack.threat == cascade.threat:
            tried = {one.index for one in found}
            others = [row for row in cascade.undecided.nonzero()[:, 0].tolist() if row not in tried]
            entries += cascade.attack(stage, cascade.affordable(stage, others))
        done.append(cascade.summary(stage, entries))
    return tuple(done)
