"""What an evaluation will cost, from a pilot on a few images.

Stages are run on the pilot's images, expensive ones on a few of them, so that it is known how many images
they leave. Of the most expensive a short form shows the speed, and whether it breaks the images nearest to an
error.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from advkit.attacks.engine.oracle import FEWEST
from advkit.attacks.engine.outcome import Outcome
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import logits_of, make
from advkit.core import rng
from advkit.core.device import arithmetic, repeatable
from advkit.core.progress import SILENT
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation.cascade import ROUNDS, Cascade, most_common, settled
from advkit.evaluation.ledger import Ledger
from advkit.evaluation.missing import sample_attacks, sample_size
from advkit.evaluation.result import Cost
from advkit.evaluation.settings import Evaluation
from advkit.models.bpda import straight_through
from advkit.models.model import evaluation_mode

PILOT = 48
"""Images of a pilot."""
CLEAN = 500
"""Images by which the clean accuracy is estimated."""
CHEAP, EXPENSIVE = 330, 2000
"""Passes per image up to which a stage is run on the pilot, and on a few of its images."""
FEW = 8
"""So many."""
PROBED = {"steps": 25, "queries": 300}
"""The parameters of the short form of a stage that is more expensive still."""
TIMED = {"steps": 6, "queries": 60}
"""Those of a form that is only timed, on as many images as the stage will attack."""
FIRST = {"steps": 1, "queries": 3}
"""Those of a form that comes before what is timed."""


@dataclass(frozen=True)
class Expected:
    """One stage."""

    name: str
    images: float
    """That it attacks."""
    passes: float
    """Forward and backward."""
    seconds: float
    whole: float = 0.0
    """Images of the whole data set that it would attack."""


@dataclass(frozen=True)
class Forecast:
    """What the evaluation is expected to cost on this machine."""

    pilot: int
    """Images of the pilot."""
    images: int
    """That are asked for."""
    of: int
    """Images of the data set."""
    stages: tuple[Expected, ...]
    memory: int
    """Largest number of bytes of the process, or of the device, in the pilot."""
    clean: float = 0.0
    """Seconds of a forward pass over one image, with its reading."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        about = {"passes": self.passes, "seconds": self.seconds, "cost": self.cost.model_dump(mode="json")}
        return {**asdict(self), **about}

    @property
    def cost(self) -> Cost:
        """Of an image, and of all images of the data set."""
        each = [(one.whole / one.images, one) for one in self.stages if one.images]
        return Cost(
            passes=1 + self.passes / self.images,
            seconds=self.clean + self.seconds / self.images,
            images=self.of,
            all_passes=self.of + sum(times * one.passes for times, one in each),
            all_seconds=self.of * self.clean + sum(times * one.seconds for times, one in each),
        )

    @property
    def passes(self) -> float:
        """Of all stages."""
        return sum(stage.passes for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


def forecast(
    subject: Subject,
    threat: Threat,
    config: Evaluation,
    stages: Sequence[Stage],
    within: float = math.inf,
) -> Forecast:
    """What an evaluation without a black box, a surrogate and certificates is expected to cost.

    Args:
        within: seconds after which nothing more is measured. The pilot of a slow model has fewer images, and
            the stages that it does not come to are taken to cost all their passes, at the speed so far.

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
    with repeatable(), evaluation_mode(model), rng.scope(device, config.seed, "model"), torch.enable_grad():
        with torch.no_grad():
            begun = time.perf_counter()
            classes = logits_of(model, images.take(order[:FEW])).shape[1]
            each = (time.perf_counter() - begun) / min(FEW, len(images))
            most = make(stages[0].attack, threat, stages[0].parameters).most_passes(classes)
            few = images.take(order[: max(1, int(min(PILOT, within / (each * most))))].sort().values)
            seen = images.take(order[: max(1, int(min(CLEAN, within / each)))].sort().values)
            looked = time.perf_counter()
            right = int((logits_of(model, seen).argmax(1) == seen.labels).sum()) / len(seen)
            each = min(each, (time.perf_counter() - looked) / len(seen))
            clean = logits_of(model, few)
        size = sample_size(config.check_sample, config.attack, len(images))
        sampled = sample_attacks(threat, classes) if size else ()
        names = [stage.name for stage in (*stages, *sampled)]
        with Ledger(None, few, names, keep=False, confirm=None, progress=SILENT) as ledger:
            cascade = Cascade(model, searched, few, clean, threat, ledger, config, votes=1, progress=SILENT)
            pilot = _Pilot(cascade, len(images), subject.available, begun + within, each)
            left, found = len(images) * right, []
            for stage in stages:
                one, left = pilot.stage(stage, left)
                found.append(one)
            larger = sample_size(config.check_sample, config.attack, subject.available)
            for stage in sampled:
                same = [one for one, by in zip(found, stages, strict=False) if by.key == stage.key]
                some = drawn(size, left, sum(one.images for one in same))
                many = drawn(larger, left * subject.available / len(images), sum(one.whole for one in same))
                found.append(replace(pilot.stage(stage, some)[0], whole=many))
    return Forecast(len(few), len(images), subject.available, tuple(found), _memory(device), each)


def silent(stage: Stage, left: float, n: int) -> float:
    """Of ``left`` images those that a stage in rounds attacks before it stops, if it breaks none of them."""
    size = max(stage.round, math.ceil(left / ROUNDS))
    for look in range(1, ROUNDS):
        tried = min(left, look * size)
        rest = left - tried
        if settled(stage, rest, most_common(0, int(tried), look), n):
            return tried
    return left


def reached(stage: Stage, left: float, share: float, n: int) -> float:
    """Of ``left`` images those that a stage attacks, if it breaks this share of them, which come first."""
    if stage.tolerance <= 0:
        return left
    return min(left, left * share + silent(stage, left * (1 - share), n))


def drawn(size: int, left: float, done: float) -> float:
    """Of a random sample of the survivors those that no stage has attacked in the same way."""
    return min(math.ceil(size * (1 - done / left)), left - done) if left else 0.0


class _Pilot:
    """The attacks on the pilot's images.

    Args:
        of: images of the data set.
        until: the time (`time.perf_counter`) after which nothing more is measured.
        per_pass: seconds of a pass, before one is measured.
    """

    def __init__(self, cascade: Cascade, n: int, of: int, until: float, per_pass: float) -> None:
        self.cascade, self.n, self.of, self.until, self.per_pass = cascade, n, of, until, per_pass
        self.broken: dict[str, float] = {}
        """Successes by stage, expected of all images."""

    def stage(self, stage: Stage, left: float) -> tuple[Expected, float]:
        """What a stage costs that gets ``left`` images, and how many it leaves."""
        cascade = self.cascade
        attack = make(stage.attack, cascade.threat, stage.parameters)
        most = attack.most_passes(cascade.clean.shape[1])
        before = math.inf if stage.after is None else self.broken.get(stage.after, 0.0)
        if left <= stage.beyond or before < max(1.0, stage.tolerance * self.n):
            return Expected(stage.name, 0, 0, 0), left
        measured = time.perf_counter() < self.until
        rows = cascade.undecided.nonzero()[:, 0].tolist() if measured else []
        passes, share = float(most), 0.0
        variants = attack.variants(cascade.clean.shape[1])
        if rows:  # the first passes of a new shape are slow
            self._probe(stage, rows, FIRST)
        if some := rows[: PILOT if most <= CHEAP else FEW if most <= EXPENSIVE else 0]:
            begun = time.perf_counter()
            entries = cascade.attack(stage, some)
            passes = sum(entry.passes for entry in entries) / len(some)
            share = sum(entry.broken for entry in entries) / len(some)
            self.per_pass = (time.perf_counter() - begun) / (passes * len(some))
        elif rows and left:
            first = cascade.nearest_first(rows)[: max(stage.round, math.ceil(left / ROUNDS))]
            self.per_pass, broken = self._probe(stage, first, PROBED)
            self.per_pass *= min(1.0, len(first) * variants / min(FEWEST, math.ceil(left) * variants))
            share = broken / 2  # of all images, if of those with larger margins evenly more
        count, kept = reached(stage, left, share, self.n), left * (1 - share)
        whole = reached(stage, left * self.of / self.n, share, self.of)
        if len(some) < min(len(rows), count) and some:  # a pass of few rows takes longer
            self.per_pass = self._probe(stage, rows[: math.ceil(count)], TIMED)[0]
        self.broken[stage.name] = left - kept
        seconds = count * passes * self.per_pass
        return Expected(stage.name, count, count * passes, seconds, whole), kept

    def _probe(self, stage: Stage, rows: list[int], short: dict[str, int]) -> tuple[float, float]:
        """Seconds of a pass of a short form of the stage, and the share of images that this breaks."""
        cascade = self.cascade
        fields = make(stage.attack, cascade.threat, stage.parameters).config
        parameters = {key: value for key, value in short.items() if value < getattr(fields, key, 0)}
        probe = make(stage.attack, cascade.threat, {**stage.parameters, **parameters})
        oracle = cascade.oracle(cascade.threat, probe.access, cascade.precision(stage, probe))
        found: list[Outcome] = []
        begun = time.perf_counter()
        search = cascade.searching(stage.key, probe, oracle)
        search.run(torch.tensor(rows), lambda one: found.append(one.outcome))
        passes = sum(one.passes for one in found)
        return (time.perf_counter() - begun) / passes, sum(one.broken for one in found) / len(found)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
