"""Continuous batching: rows that have succeeded or finished are replaced, so that the batch stays full.

No pass is spent where it cannot change a verdict: later variants (restarts, targets) of a sample are only
started while no adversarial example is known, and removed when an earlier variant finds one.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State
from advkit.attacks.engine.batch_size import BatchSizeTuner
from advkit.attacks.engine.oracle import Oracle, RowBuffer
from advkit.attacks.engine.outcome import Found, VariantResults
from advkit.attacks.engine.record import column
from advkit.core import memory, rng
from advkit.core.threat import Threat
from advkit.data.data import Data

LOG = logging.getLogger(__name__)

FARTHER = (1.0001, 1.001, 1.01)
"""Factors by which the perturbation of a nearest success may grow until the model itself confirms it."""
REPORT_EVERY = 1.0
"""Seconds between reports of progress on undecided samples."""


@dataclass(frozen=True)
class _Job:
    """The variant and sample of a row of the batch, and the tick at which it started."""

    index: int
    variant: int
    since: int


class _Queue(Iterator[tuple[int, int]]):
    """Pairs (variant, index) in order, of which one can be put back and the next ones looked at."""

    def __init__(self, pairs: Iterator[tuple[int, int]]) -> None:
        self._pairs = pairs
        self._first: deque[tuple[int, int]] = deque()

    def __next__(self) -> tuple[int, int]:
        return self._first.popleft() if self._first else next(self._pairs)

    def put_back(self, pairs: Sequence[tuple[int, int]]) -> None:
        """These come first, in their order."""
        self._first.extendleft(reversed(pairs))

    def following(self, n: int) -> list[tuple[int, int]]:
        """The next ``n``, which stay."""
        self._first.extend(itertools.islice(self._pairs, max(0, n - len(self._first))))
        return [*itertools.islice(self._first, n)]


class Search:
    """Runs one attack on some samples of a data set.

    Each is attacked until an adversarial example is found or all its variants are done; where the oracle
    keeps the nearest success, until all are done.

    Args:
        clean: (N, K) logits of all of the data's images.
        seed: the user's seed; random numbers are a function of it, the attack's name, the sample's id,
            the variant and the step.
        tuner: chooses how many rows to attack at once.
        target_class: (N,) target class of each image, or None: untargeted.
    """

    def __init__(
        self,
        attack: Attack[Any],
        oracle: Oracle,
        data: Data,
        clean: Tensor,
        *,
        seed: int,
        name: str,
        tuner: BatchSizeTuner,
        device: torch.device,
        target_class: Tensor | None = None,
    ) -> None:
        self.attack, self.oracle, self.data, self.clean = attack, oracle, data, clean
        self.seed, self.name, self.tuner, self.device = seed, name, tuner, device
        self.target_class = target_class
        classes = clean.shape[1]
        self._targets = 0 if target_class is not None else min(attack.targets, classes - 1)
        self.variants = attack.starts if target_class is not None else attack.variants(classes)
        """Rows per sample."""
        # On the CPU reading results is free; elsewhere it synchronises with the device.
        self.check_every = 1 if device.type == "cpu" or oracle.box is not None else 8

    def run(
        self,
        index: Tensor,
        report: Callable[[Found], None],
        underway: Callable[[float], None] | None = None,
    ) -> None:
        """Attacks the rows ``index`` of the data.

        Args:
            index: (M,) row numbers.
            report: called with the outcome of every sample once, as it is decided.
            underway: called about once a second with the progress on undecided samples, in samples.
        """
        pending = {int(i): VariantResults(self.variants, nearest=self.oracle.nearest) for i in index}
        queue = _Queue(itertools.product(range(self.variants), index.tolist()))
        before = {} if self.oracle.box is None else self.oracle.box.account.sent.copy()
        gradients = self.attack.access == "gradients"
        buffer: RowBuffer | None = None
        jobs: list[_Job] = []
        tick, last, checked = 0, 0, time.perf_counter()
        reported = checked
        while True:
            capacity = 1 if self.attack.single_image else self.tuner.size(gradients)
            fresh = self._next(queue, pending, capacity - len(jobs))
            jobs += [_Job(i, variant, tick) for variant, i in fresh]
            if not jobs:
                return
            rows = len(jobs)
            try:
                if fresh:
                    new = RowBuffer.of(self.attack.start(self.rows(fresh)), self.oracle.threat)
                    buffer = new if buffer is None else RowBuffer.cat([buffer, new])
                    self.data.expect([index for _, index in queue.following(capacity)])
                assert buffer is not None
                self.oracle.bind(buffer)
                buffer.state = self.attack.step(buffer.state, self.oracle)
            except (RuntimeError, MemoryError) as error:
                if not memory.exhausted(error) or not self.tuner.halve(gradients):
                    raise
                LOG.info("%d rows exceed the memory; they start again in smaller batches", rows)
                queue.put_back([(job.variant, job.index) for job in jobs])
                buffer, jobs = None, []
                continue
            buffer.state.iteration = buffer.state.iteration + 1
            self.oracle.bind(None)
            tick += 1
            oldest = tick - min(job.since for job in jobs)
            if tick % self.check_every == 0 or oldest == self.attack.steps:
                buffer, jobs = self._remove_done(buffer, jobs, pending, report, before)
                now = time.perf_counter()
                self.tuner.record(gradients, rows, (now - checked) / (tick - last))
                checked, last = now, tick
                if underway is not None and now - reported >= REPORT_EVERY:
                    reported = now
                    underway(self._progress(buffer, pending))

    def _progress(self, buffer: RowBuffer | None, pending: Mapping[int, VariantResults]) -> float:
        """Steps taken on undecided samples, in units of the steps of one sample."""
        rows = float(sum(results.done for results in pending.values()))
        if buffer is not None:
            rows += float(buffer.state.iteration.sum()) / self.attack.steps
        return rows / self.variants

    def _next(self, queue: _Queue, pending: dict[int, VariantResults], free: int) -> list[tuple[int, int]]:
        """Up to ``free`` pairs (variant, index) of the queue that may still change a verdict.

        The variants of an image run at the same time, but those of a black box one after the other: each
        query counts, and a later variant may not be needed.
        """
        jobs: list[tuple[int, int]] = []
        held: list[tuple[int, int]] = []
        while len(jobs) < free:
            job = next(queue, None)
            if job is None:
                break
            if not _matters(*job, pending):
                continue
            early = self.oracle.box is not None and pending[job[1]].done < job[0]
            (held if early else jobs).append(job)
        queue.put_back(held)
        return jobs

    def rows(self, jobs: Sequence[tuple[int, int]]) -> Rows:
        """The rows of ``jobs``: pairs of variant and index."""
        index = torch.tensor([i for _, i in jobs])
        variant = torch.tensor([v for v, _ in jobs], device=self.device)
        x0, label = self.data.batch(index, self.device)
        ids = self.data.ids[index].to(self.device)
        clean = self.clean[index].to(self.device)
        target_class = None if self.target_class is None else self.target_class[index].to(self.device)
        search_target = target_class
        if self._targets:
            wrong = clean.scatter(1, label[:, None], -torch.inf)
            rank = (variant % self._targets)[:, None]
            search_target = wrong.argsort(dim=1, descending=True, stable=True).gather(1, rank)[:, 0]
        key = rng.keys(self.seed, self.name, ids, variant)
        return Rows(x0, label, target_class, search_target, clean, ids, variant, key)

    def _remove_done(
        self,
        buffer: RowBuffer,
        jobs: list[_Job],
        pending: dict[int, VariantResults],
        report: Callable[[Found], None],
        before: Mapping[int | None, int],
    ) -> tuple[RowBuffer | None, list[_Job]]:
        """Confirms successes and removes the rows that are done, with the other variants of their samples;
        ``before`` are the queries to a black box about each image before this search."""
        finished = buffer.state.iteration >= self.attack.steps
        if self.oracle.box is not None:  # what is left is needed to confirm
            account = self.oracle.box.account
            left = [account.left(sample) for sample in buffer.state.rows.sample.tolist()]
            finished |= torch.tensor([each <= self.oracle.votes for each in left], device=self.device)
        done = (finished if self.oracle.nearest else buffer.success | finished).nonzero()[:, 0]
        if len(done) == 0:
            return buffer, jobs
        group = buffer.take(done)
        x, confirmed = self._confirm(group, finished[done])
        unconfirmed = group.success & ~confirmed & ~finished[done]
        buffer.success[done] = torch.where(unconfirmed, False, group.success)
        buffer.refuted[done] = torch.where(unconfirmed, group.success_margin, group.refuted)
        buffer.refusals[done] = group.refusals
        buffer.forwards[done] = group.forwards
        at = torch.where(group.success, group.success_step + 1, group.state.iteration)
        counts = torch.stack(
            [
                confirmed,
                unconfirmed,
                at,
                group.state.rows.variant,
                group.refusals,
                group.forwards,
                group.backwards,
                group.undefined,
            ]
        ).tolist()
        distances = self.oracle.threat.distance(x, group.state.rows.x0).tolist()
        margins, points = group.margin.tolist(), x.cpu()
        gone: set[int] = set()
        for row, place in enumerate(done.tolist()):
            broken, continues, iteration, variant, refusals, forwards, backwards, undefined = (
                int(c[row]) for c in counts
            )
            if continues:
                continue
            gone.add(place)
            index = jobs[place].index
            if not _matters(variant, index, pending):  # an earlier variant succeeded in the same step
                continue
            found = pending[index].add(
                Found(
                    index=index,
                    x=points[row].clone(),  # a view would keep the memory of the whole batch
                    broken=bool(broken),
                    iteration=iteration if broken else 0,
                    variant=variant,
                    distance=distances[row],
                    margin=margins[row] if math.isfinite(margins[row]) else None,
                    refuted=refusals,
                    forwards=forwards,
                    backwards=backwards,
                    undefined=bool(undefined),
                )
            )
            if found is not None:
                del pending[index]
                if self.oracle.box is not None:
                    sample = int(self.data.ids[index])
                    spent = self.oracle.box.account.sent[sample] - before[sample]
                    found = replace(found, forwards=spent)
                report(found)
        kept = [
            row
            for row, job in enumerate(jobs)
            if row not in gone and _matters(job.variant, job.index, pending)
        ]
        if not kept:
            return None, []
        return buffer.take(torch.tensor(kept, device=self.device)), [jobs[row] for row in kept]

    def _confirm(self, group: RowBuffer, finished: Tensor) -> tuple[Tensor, Tensor]:
        """(the points to report (R, C, H, W), (R,) bool: the model itself confirms them).

        A finished row whose success was not confirmed is evaluated at its last point too.
        """
        rows, threat = group.state.rows, self.oracle.threat
        last = self.oracle.reported(threat.project(group.state.x, rows.x0), rows)
        x = torch.where(column(group.success, last), self.oracle.reported(group.success_x, rows), last)
        confirmed = self.oracle.confirm(x, rows)
        group.forwards += self.oracle.votes
        refused = group.success & ~confirmed
        group.refusals += refused & group.success_certain
        if not refused.any():
            return x, confirmed
        again = (refused & finished).nonzero()[:, 0]
        tries = [last]
        if self.oracle.nearest:
            farther = [(rows.x0 + factor * (group.success_x - rows.x0)).clamp(0, 1) for factor in FARTHER]
            tries = [self.oracle.reported(point, rows) for point in farther]
        for other in tries:
            if len(again) == 0:
                break
            met = self.oracle.confirm(other[again], rows.take(again))
            group.forwards[again] += self.oracle.votes
            x[again[met]] = other[again[met]]
            confirmed[again[met]] = True
            if not self.oracle.nearest:
                group.success[again[met]] = False  # the last step counts, not that of the refused success
            again = again[~met]
        return x, confirmed


def _matters(variant: int, index: int, pending: Mapping[int, VariantResults]) -> bool:
    """Whether this row may still change a verdict."""
    results = pending.get(index)
    return results is not None and variant <= results.last


def run_fixed(attack: Attack[Any], oracle: Oracle, rows: Rows) -> Tensor:
    """All steps on all rows, without early exit, for adversarial training.

    Returns:
        (R, C, H, W) the last points, inside the threat model.
    """
    state: State = attack.start(rows)
    for _ in range(attack.steps):
        state = attack.step(state, oracle)
        state.iteration = state.iteration + 1
    threat: Threat = oracle.threat
    return threat.project(state.x, rows.x0)
