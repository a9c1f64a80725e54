"""A check on a random sample of the survivors, which does not depend on what the cascade chose to attack.

Two attacks, Square with 5,000 queries and targeted Auto-PGD with 100 steps toward up to nine classes, attack
a uniformly random sample of the images that are still robust. The number that they break bounds, with 95 %,
how many they would break if they attacked all of them. It says nothing about other attacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from advkit.attacks.ensemble import Stage, stage
from advkit.core import rng
from advkit.core.stats import most_successes
from advkit.core.threat import Threat
from advkit.evaluation import result
from advkit.evaluation.cascade import Cascade

QUERIES, STEPS, TARGETS = 5000, 100, 9


def pair(threat: Threat, classes: int) -> tuple[Stage, ...]:
    """The attacks of the check; none in l0, where Square is not defined."""
    if threat.norm == "l0":
        return ()
    loss = "dlr" if classes >= 4 else "logit-difference"
    targets = min(TARGETS, classes - 1)
    parts = (
        stage("square", "square", queries=QUERIES),
        stage("apgd-t", "apgd", loss=loss, targets=targets, steps=STEPS),
    )
    return tuple(replace(one, name=f"sample/{one.name}", key=f"sample/{one.key}") for one in parts)


def sample_size(asked: int | None, attacks: Sequence[str], n: int) -> int:
    """How many survivors the check attacks: what was asked for, else twice the root of ``n`` for ``cascade``,
    and none for other attacks, whose survivors have seen all of them."""
    if asked is not None:
        return asked
    return round(2 * math.sqrt(n)) if "cascade" in attacks else 0


def look(
    cascade: Cascade, stages: Sequence[Stage], size: int
) -> tuple[tuple[result.Stage, ...], result.Missing | None]:
    """Attacks a sample of the survivors, and with an attack that breaks some of it all the others too.

    Returns:
        The results of the attacks, and the bound; nothing without a sample or when the budget is spent.
    """
    survivors = cascade.undecided.nonzero()[:, 0].tolist()
    if not stages or not size or not survivors or cascade.exhausted:
        return (), None
    drawn = _drawn(cascade, survivors, size)
    others = sorted({*survivors} - {*drawn})
    done, by, hits = [], [], 0
    for one in stages:
        first = cascade.attack(one, [row for row in drawn if cascade.undecided[row]])
        found, more = sum(entry.broken for entry in first), []
        if found:
            by.append(one.name)
            more = cascade.attack(one, [row for row in others if cascade.undecided[row]])
        hits += found
        done.append(cascade.summary(one, [*first, *more]))
    broken, n = sum(each.broken for each in done), len(cascade.images)
    left = max(most_successes(hits, len(drawn), len(survivors)) - broken, 0)
    missing = result.Missing(
        sample=len(drawn),
        survivors=len(survivors),
        hits=hits,
        broken=broken,
        by=tuple(by),
        at_most=left,
        points=100 * left / n,
    )
    return tuple(done), missing


def _drawn(cascade: Cascade, survivors: Sequence[int], size: int) -> list[int]:
    """A uniformly random sample, which follows from the seed."""
    ids = torch.tensor([cascade.ids[row] for row in survivors])
    draws = rng.uniform(rng.keys(cascade.config.seed, "sample", ids), (1,))[:, 0]
    return sorted(survivors[place] for place in draws.argsort(stable=True)[:size].tolist())
