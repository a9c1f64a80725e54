"""What an evaluation will cost, from a pilot on a few images.

Stages are run on the pilot's images, expensive ones on a few of them, so that it is known how many images
they leave. Of the most expensive a short form is timed: what gets there seldom breaks, and costs all passes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from advkit.attacks.attack import Attack
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import logits_of, make
from advkit.core import rng
from advkit.core.device import arithmetic, repeatable
from advkit.core.progress import SILENT
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation.cascade import RARE, ROUNDS, Cascade, most_common
from advkit.evaluation.ledger import Ledger
from advkit.evaluation.missing import pair, sample_size
from advkit.evaluation.settings import Evaluation
from advkit.models.bpda import straight_through
from advkit.models.model import evaluation_mode

PILOT = 48
"""Images of a pilot."""
CLEAN = 500
"""Images by which the clean accuracy is estimated."""
CHEAP, EXPENSIVE = 260, 2000
"""Passes per image up to which a stage is run on the pilot, and on a few of its images."""
FEW = 8
"""So many."""
PROBED = {"steps": 6, "queries": 60}
"""The parameters of the short form of a stage that is more expensive still."""


@dataclass(frozen=True)
class Expected:
    """One stage."""

    name: str
    images: float
    """That it attacks."""
    passes: float
    """Forward and backward."""
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What the evaluation is expected to cost on this machine."""

    pilot: int
    """Images of the pilot."""
    stages: tuple[Expected, ...]
    memory: int
    """Largest number of bytes of the process, or of the device, in the pilot."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "passes": self.passes, "seconds": self.seconds}

    @property
    def passes(self) -> float:
        """Of all stages."""
        return sum(stage.passes for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


def most_passes(attack: Attack[Any], classes: int) -> int:
    """Forward and backward passes that an image costs at most, with one to confirm."""
    return attack.variants(classes) * (attack.steps * (2 if attack.access == "gradients" else 1) + 1)


def forecast(subject: Subject, threat: Threat, config: Evaluation, stages: Sequence[Stage]) -> Forecast:
    """What an evaluation without a black box, a surrogate and certificates is expected to cost.

    Args:
        subject: a classifier and all images.
        threat: what may be changed.
        config: of the evaluation.
        stages: its plan.

    Example:
        >>> from advkit.evaluation.evaluate import plan
        >>> stages = plan(config.attack, threat, 10, config.parameters)  # doctest: +SKIP
        >>> forecast(subject, threat, config, stages).seconds  # doctest: +SKIP
        41.3
    """
    model, images, device = subject.model, subject.images, subject.few.device
    order = rng.permutation(config.seed, "pilot", len(images))
    searched = straight_through(model, config.bpda, subject.few) if config.bpda else model
    config = config.model_copy(update={"precision": arithmetic(config.precision, device)})
    few = images.take(order[:PILOT].sort().values)
    with repeatable(), evaluation_mode(model), rng.scope(device, config.seed, "model"), torch.enable_grad():
        seen = images.take(order[:CLEAN].sort().values)
        with torch.no_grad():
            right = int((logits_of(model, seen).argmax(1) == seen.labels).sum()) / len(seen)
            clean = logits_of(model, few)
        classes = clean.shape[1]
        size = sample_size(config.check_sample, config.attack, len(images))
        sampled = pair(threat, classes) if size else ()
        names = [stage.name for stage in (*stages, *sampled)]
        with Ledger(None, few, names, keep=False, confirm=None, progress=SILENT) as ledger:
            pilot = Cascade(model, searched, few, clean, threat, ledger, config, votes=1, progress=SILENT)
            left, found = len(images) * right, []
            broken: dict[str, float] = {}
            for stage in stages:
                one, left = _stage(pilot, stage, left, len(images), broken)
                found.append(one)
            for stage in sampled:  # of the survivors on which no stage has made the same attack
                done = sum(one.images for one, by in zip(found, stages, strict=False) if by.key == stage.key)
                share = 1 - done / left if left else 0.0
                drawn = min(math.ceil(size * share), left - done)
                found.append(_stage(pilot, stage, drawn, len(images), broken)[0])
    return Forecast(len(few), tuple(found), _memory(device))


def silent(stage: Stage, left: float, n: int) -> float:
    """Of ``left`` images those that a stage in rounds attacks before it stops, if it breaks none of them."""
    size, tried = max(stage.round, math.ceil(left / ROUNDS)), 0.0
    for look in range(1, ROUNDS + 1):
        tried = min(left, look * size)
        rest = left - tried
        if rest * most_common(0, int(tried), look) < max(stage.tolerance * n, RARE * rest):
            break
    return tried


def _stage(
    pilot: Cascade, stage: Stage, left: float, n: int, found: dict[str, float]
) -> tuple[Expected, float]:
    """What a stage costs that gets ``left`` images, and how many it leaves; ``found``: successes by stage."""
    attack = make(stage.attack, pilot.threat, stage.parameters)
    rows, most = pilot.undecided.nonzero()[:, 0].tolist(), most_passes(attack, pilot.clean.shape[1])
    if stage.after is not None and found.get(stage.after, 0.0) < max(1.0, stage.tolerance * n):
        return Expected(stage.name, 0, 0, 0), left
    some = rows[: PILOT if most <= CHEAP else FEW if most <= EXPENSIVE else 0]
    if some:
        begun = time.perf_counter()
        entries = pilot.attack(stage, some)
        seconds = (time.perf_counter() - begun) / len(some)
        passes = sum(entry.forwards + entry.backwards for entry in entries) / len(some)
        share = sum(entry.broken for entry in entries) / len(some)
    else:
        passes, share = float(most), 0.0
        seconds = most * (_seconds(pilot, stage, attack, rows[:FEW]) if rows and left else 0.0)
    count, kept = left, left * (1 - share)
    if stage.tolerance > 0:  # the images that break come first
        count = min(left, left * share + silent(stage, kept, n))
    found[stage.name] = left - kept
    return Expected(stage.name, count, count * passes, count * seconds), kept


def _seconds(pilot: Cascade, stage: Stage, attack: Attack[Any], rows: list[int]) -> float:
    """Of a pass, from a short form of the stage."""
    parameters = {k: v for k, v in PROBED.items() if v < getattr(attack.config, k, 0)}
    probe = make(stage.attack, pilot.threat, {**stage.parameters, **parameters})
    oracle = pilot.oracle(pilot.threat, probe.access, stage.precision or pilot.config.precision)
    passes: list[int] = []
    begun = time.perf_counter()
    pilot.searching(stage.key, probe, oracle).run(
        torch.tensor(rows), lambda one: passes.append(one.outcome.forwards + one.outcome.backwards)
    )
    return (time.perf_counter() - begun) / max(1, sum(passes))


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
