"""Continuous batching: rows that have succeeded or finished leave, new ones move in, the batch stays full.

No pass is spent where it cannot change a verdict: a sample's later variants (restarts, targets) are only
seated while it stands, and leave when an earlier one breaks it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State
from advkit.attacks.engine.oracle import Oracle, Seats
from advkit.attacks.engine.outcome import Found, Tally
from advkit.attacks.engine.pace import Pace
from advkit.attacks.engine.record import column
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.data.data import Data

FARTHER = (1.0001, 1.001, 1.01)
"""How much farther along its direction a nearest success may be taken until the model itself repeats it."""
TELL_EVERY = 1.0
"""Seconds between reports of how far the undecided samples are."""


@dataclass(frozen=True)
class _Place:
    """Which variant of which sample sits in a row of the batch, and since which tick."""

    index: int
    variant: int
    since: int


class Search:
    """Runs one attack on some samples of a data set.

    Each is attacked until it falls or all its variants are done; where the oracle looks for the nearest
    success, until all are done.

    Args:
        attack: the state machine.
        oracle: the door to the model.
        data: where the images are.
        clean: (N, K) logits of all of the data's images.
        seed: the user's seed; random numbers are a function of it, the attack's name, the sample's id,
            the variant and the step.
        name: the attack's name.
        pace: how many rows to have at work at once.
        device: where to work.
        goal: (N,) class wanted for each image, or None: any wrong one.
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
        pace: Pace,
        device: torch.device,
        goal: Tensor | None = None,
    ) -> None:
        self.attack, self.oracle, self.data, self.clean = attack, oracle, data, clean
        self.seed, self.name, self.pace, self.device = seed, name, pace, device
        self.goal = goal
        self._targets = 0 if goal is not None else min(attack.targets, clean.shape[1] - 1)
        self.variants = attack.starts * max(self._targets, 1)
        """Rows per sample."""
        # On the CPU a look costs nothing; elsewhere it waits for the queue to drain.
        self.look_every = 1 if device.type == "cpu" else 8

    def run(
        self,
        index: Tensor,
        report: Callable[[Found], None],
        underway: Callable[[float], None] | None = None,
    ) -> None:
        """Attacks the rows ``index`` of the data.

        Args:
            index: which.
            report: hears of every sample once, as it is decided.
            underway: hears about once a second how many samples the work on undecided ones is worth.
        """
        tallies = {int(i): Tally(self.variants, nearest=self.oracle.nearest) for i in index}
        queue = ((variant, int(i)) for variant in range(self.variants) for i in index)
        gradients = self.attack.access == "gradients"
        seats: Seats | None = None
        places: list[_Place] = []
        tick, last, looked = 0, 0, time.perf_counter()
        told = looked
        while True:
            seating = 1 if self.attack.alone else self.pace.size(gradients)
            fresh = self._next(queue, tallies, seating - len(places))
            if fresh:
                new = Seats.of(self.attack.start(self.rows(fresh)), self.oracle.threat)
                seats = new if seats is None else Seats.cat([seats, new])
                places += [_Place(i, variant, tick) for variant, i in fresh]
            if seats is None or not places:
                return
            at_work = len(places)
            self.oracle.attend(seats)
            seats.state = self.attack.step(seats.state, self.oracle)
            seats.state.iteration = seats.state.iteration + 1
            self.oracle.attend(None)
            tick += 1
            oldest = tick - min(place.since for place in places)
            if tick % self.look_every == 0 or oldest == self.attack.steps:
                seats, places = self._settle(seats, places, tallies, report)
                now = time.perf_counter()
                self.pace.saw(gradients, at_work, (now - looked) / (tick - last))
                looked, last = now, tick
                if underway is not None and now - told >= TELL_EVERY:
                    told = now
                    underway(self._worth(seats, tallies))

    def _worth(self, seats: Seats | None, tallies: Mapping[int, Tally]) -> float:
        """How many samples the steps that were made on undecided ones would have decided."""
        rows = float(sum(tally.done for tally in tallies.values()))
        if seats is not None:
            rows += float(seats.state.iteration.sum()) / self.attack.steps
        return rows / self.variants

    def _next(
        self, queue: Iterator[tuple[int, int]], tallies: dict[int, Tally], free: int
    ) -> list[tuple[int, int]]:
        """Up to ``free`` jobs (variant, index) that may still change a verdict."""
        jobs: list[tuple[int, int]] = []
        while len(jobs) < free:
            job = next(queue, None)
            if job is None:
                break
            if _matters(*job, tallies):
                jobs.append(job)
        return jobs

    def rows(self, jobs: Sequence[tuple[int, int]]) -> Rows:
        """The rows of ``jobs``: pairs of variant and index."""
        index = torch.tensor([i for _, i in jobs])
        variant = torch.tensor([v for v, _ in jobs], device=self.device)
        x0, label = self.data.batch(index, self.device)
        ids = self.data.ids[index].to(self.device)
        clean = self.clean[index].to(self.device)
        goal = None if self.goal is None else self.goal[index].to(self.device)
        aim = goal
        if self._targets:
            wrong = clean.scatter(1, label[:, None], -torch.inf)
            rank = (variant % self._targets)[:, None]
            aim = wrong.argsort(dim=1, descending=True, stable=True).gather(1, rank)[:, 0]
        key = rng.keys(self.seed, self.name, ids, variant)
        return Rows(x0, label, goal, aim, clean, ids, variant, key)

    def _settle(
        self, seats: Seats, places: list[_Place], tallies: dict[int, Tally], report: Callable[[Found], None]
    ) -> tuple[Seats | None, list[_Place]]:
        """Confirms successes and sends away the rows that are done, with their siblings."""
        finished = seats.state.iteration >= self.attack.steps
        leaving = (finished if self.oracle.nearest else seats.won | finished).nonzero()[:, 0]
        if len(leaving) == 0:
            return seats, places
        group = seats.take(leaving)
        x, confirmed = self._judge(group, finished[leaving])
        doubtful = group.won & ~confirmed & ~finished[leaving]
        seats.won[leaving] = torch.where(doubtful, False, group.won)
        seats.refuted[leaving] = torch.where(doubtful, group.won_margin, group.refuted)
        seats.refusals[leaving] = group.refusals
        seats.forwards[leaving] = group.forwards
        at = torch.where(group.won, group.won_at + 1, group.state.iteration)
        counts = torch.stack(
            [
                confirmed,
                doubtful,
                at,
                group.state.rows.variant,
                group.refusals,
                group.forwards,
                group.backwards,
            ]
        ).tolist()
        distances = self.oracle.threat.distance(x, group.state.rows.x0).tolist()
        margins, points = group.margin.tolist(), x.cpu()
        gone: set[int] = set()
        for row, place in enumerate(leaving.tolist()):
            broken, stays, iteration, variant, refusals, forwards, backwards = (int(c[row]) for c in counts)
            if stays:
                continue
            gone.add(place)
            index = places[place].index
            if not _matters(variant, index, tallies):  # an earlier sibling broke it at the same moment
                continue
            found = tallies[index].add(
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
                )
            )
            if found is not None:
                del tallies[index]
                report(found)
        stay = [
            row
            for row, place in enumerate(places)
            if row not in gone and _matters(place.variant, place.index, tallies)
        ]
        if not stay:
            return None, []
        return seats.take(torch.tensor(stay, device=self.device)), [places[row] for row in stay]

    def _judge(self, group: Seats, finished: Tensor) -> tuple[Tensor, Tensor]:
        """(the points to report (R, C, H, W), (R,) bool: the model itself confirms them).

        A row that is finished, and whose success was not confirmed, is judged at its last point too.
        """
        rows, threat = group.state.rows, self.oracle.threat
        last = self.oracle.reported(threat.project(group.state.x, rows.x0), rows)
        x = torch.where(column(group.won, last), self.oracle.reported(group.won_x, rows), last)
        confirmed = self.oracle.confirm(x, rows)
        group.forwards += self.oracle.votes
        refused = group.won & ~confirmed
        group.refusals += refused & group.won_clearly
        if not refused.any():
            return x, confirmed
        again = (refused & finished).nonzero()[:, 0]
        tries = [last]
        if self.oracle.nearest:
            farther = [(rows.x0 + factor * (group.won_x - rows.x0)).clamp(0, 1) for factor in FARTHER]
            tries = [self.oracle.reported(point, rows) for point in farther]
        for other in tries:
            if len(again) == 0:
                break
            met = self.oracle.confirm(other[again], rows.take(again))
            group.forwards[again] += self.oracle.votes
            x[again[met]] = other[again[met]]
            confirmed[again[met]] = True
            if not self.oracle.nearest:
                group.won[again[met]] = False  # it fell at the last step, not at that of the refused success
            again = again[~met]
        return x, confirmed


def _matters(variant: int, index: int, tallies: Mapping[int, Tally]) -> bool:
    """Whether this row may still change a verdict."""
    tally = tallies.get(index)
    return tally is not None and variant <= tally.last


def run_fixed(attack: Attack[Any], oracle: Oracle, rows: Rows) -> Tensor:
    """All steps on all rows, no early exit: what adversarial training needs.

    Returns:
        (R, C, H, W) the last points, inside the threat model.
    """
    state: State = attack.start(rows)
    for _ in range(attack.steps):
        state = attack.step(state, oracle)
        state.iteration = state.iteration + 1
    threat: Threat = oracle.threat
    return threat.project(state.x, rows.x0)
