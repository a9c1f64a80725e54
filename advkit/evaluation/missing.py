"""A check on a random sample of the survivors, which does not depend on what the cascade chose to attack.

Long attacks, Square with 5,000 queries and targeted Auto-PGD, in l2 and l1 also targeted FMN, with 100 steps
toward up to nine classes, attack a uniformly random sample of the images that are still robust and that they
have not attacked yet. The number that they break bounds, with 95 %, how many they would break if they
attacked all of them. It says nothing about other attacks. Where they break some, they attack all survivors,
and then a new sample with other random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from advkit.attacks.ensemble import Stage
from advkit.attacks.ensembles.cascade import long_attacks
from advkit.core import rng
from advkit.core.stats import most_successes
from advkit.core.threat import Threat
from advkit.evaluation import result
from advkit.evaluation.cascade import Cascade

SAMPLE = "sample/"
"""What the names of its stages begin with."""


def sample_attacks(threat: Threat, classes: int) -> tuple[Stage, ...]:
    """The attacks of the check, with the random numbers of the cascade's; none in l0, where Square is not
    defined."""
    if threat.norm == "l0":
        return ()
    return tuple(replace(one, name=f"{SAMPLE}{one.name}") for one in reversed(long_attacks(threat, classes)))


def sample_size(asked: int | None, attacks: Sequence[str], n: int) -> int:
    """How many survivors the check attacks: what was asked for, else twice the root of ``n`` for ``cascade``,
    and none for other attacks, whose survivors have seen all of them."""
    if asked is not None:
        return asked
    return round(2 * math.sqrt(n)) if "cascade" in attacks else 0


def again(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The same attacks with other random numbers."""
    return tuple(
        replace(one, name=f"{SAMPLE}again/{one.name.removeprefix(SAMPLE)}", key=f"{one.key}/again")
        for one in stages
    )


def look(
    cascade: Cascade, stages: Sequence[Stage], size: int
) -> tuple[tuple[result.Stage, ...], result.Missing | None]:
    """Attacks a sample of the survivors, and `again` a second one if any of the first breaks and no budget
    ends the attacks.

    Returns:
        The results of the attacks, and the bound of the last look; nothing without a sample or when the
        budget is spent.
    """
    done, missing = _look(cascade, stages, size, "sample")
    if missing is None or not missing.hits or cascade.config.budget is not None:
        return done, missing
    more, second = _look(cascade, again(stages), size, "sample/again")
    return done + more, second and second.model_copy(update={"looks": 2})


def _look(
    cascade: Cascade, stages: Sequence[Stage], size: int, key: str
) -> tuple[tuple[result.Stage, ...], result.Missing | None]:
    """Attacks a sample of the survivors; if any of it breaks, the attacks go on to all the others.

    They go on together: where the cascade has stopped too early for one, it has often done so for the others.
    What a stage of the cascade has done with the same attack and random numbers is not done again: the sample
    is drawn from the survivors on which some of it is left to do, and is smaller by their share.
    """
    survivors = cascade.undecided.nonzero()[:, 0].tolist()
    if not stages or not size or not survivors:
        return (), None
    if cascade.exhausted:
        cascade.cut_short.append("the check on a random sample")
        return (), None
    todo = {one.name: [row for row in survivors if not _done(cascade, one, row)] for one in stages}
    unseen = sorted({row for rows in todo.values() for row in rows})
    drawn = {*_drawn(cascade, unseen, math.ceil(size * len(unseen) / len(survivors)), key)}
    entries = {}
    for one in stages:
        rows = [row for row in todo[one.name] if cascade.undecided[row] and row in drawn]
        entries[one.name] = cascade.attack(one, rows)
    hits = sum(entry.broken for sampled in entries.values() for entry in sampled)
    for one in stages if hits else ():
        others = [row for row in todo[one.name] if cascade.undecided[row] and row not in drawn]
        entries[one.name] += cascade.attack(one, cascade.affordable(one, others))
    done = [cascade.summary(one, entries[one.name]) for one in stages]
    for k, each in enumerate(done):  # as if one had gone after the other
        later = sum(other.broken for other in done[k + 1 :])
        done[k] = each.model_copy(update={"correct_after": each.correct_after + later})
    broken, n = sum(each.broken for each in done), len(cascade.images)
    left = max(most_successes(hits, len(drawn), len(unseen)) - broken, 0)
    missing = result.Missing(
        sample=len(drawn),
        survivors=len(unseen),
        hits=hits,
        broken=broken,
        by=tuple(each.name for each in done if each.broken),
        at_most=left,
        points=100 * left / n,
    )
    return tuple(done), missing


def _done(cascade: Cascade, one: Stage, row: int) -> bool:
    """Whether a stage has made the same attack on an image."""
    same = (
        each.name
        for each in cascade.stages
        if (each.key, each.attack, each.parameters) == (one.key, one.attack, one.parameters)
    )
    return any((name, cascade.ids[row]) in cascade.ledger.entries for name in same)


def _drawn(cascade: Cascade, survivors: Sequence[int], size: int, key: str) -> list[int]:
    """A uniformly random sample, which follows from the seed and the key."""
    ids = torch.tensor([cascade.ids[row] for row in survivors], dtype=torch.int64)
    draws = rng.uniform(rng.keys(cascade.config.seed, key, ids), (1,))[:, 0]
    return sorted(survivors[place] for place in draws.argsort(stable=True)[:size].tolist())
