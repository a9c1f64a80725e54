"""Many images are decided together as each is by a plain search with a queue."""

import heapq
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.threat import Threat
from advkit.verify.certification import search as module
from advkit.verify.certification.search import Problems, Search

DEPTH, THREAT = 5, Threat("linf", 0.1)


@dataclass
class Places(Problems):
    """Of binary trees; the parts of place k are 2k and 2k + 1."""

    place: Tensor


class Trees(Search[Places]):
    """Images have so many roots. Bounds are read from a table (roots, places). Each problem that is divided
    takes a second, as each image does at first. Points lie outside the ball; above 0.5 is wrong."""

    def __init__(self, roots, table, points, many, clock, **limits):
        super().__init__(
            SimpleNamespace(device=torch.device("cpu"), fine=[None]), THREAT, self.above, **limits
        )
        self.table, self.points, self.many, self.clock = table, points, many, clock
        self.image = torch.arange(len(roots)).repeat_interleave(torch.tensor(roots))

    def above(self, x, label):
        assert THREAT.contains(x, self.x[:1].expand_as(x)).all() and len(x) == len(label)
        return x.flatten(1)[:, 0] > 0.5

    def _many(self):
        return self.many

    def _begin(self):
        n = len(self.x)
        self.clock[0] += n
        self.margin, self.rounding = torch.full((n,), math.inf).double(), torch.arange(n) / 8
        root = torch.arange(len(self.image))
        self.open = Places(root[:0], self.table[root[:0], 0], root[:0])
        self.put(root, torch.ones_like(root))

    def _divide(self, parents):
        self.clock[0] += len(parents)
        inner = parents.place < 2 ** (DEPTH - 1)
        self._limit(self.image[parents.root[~inner]], parents.bound[~inner])
        parents = parents[inner]
        self.put(parents.root.repeat(2), torch.cat([2 * parents.place, 2 * parents.place + 1]))

    def put(self, root, place):
        image, bound = self.image[root], self.table[root, place]
        self._count(image)
        self._limit(image[bound > 0], bound[bound > 0])
        points = self.points[root, place].view(-1, 1, 1, 1)
        self._try(points, image)
        self.open = self.open.joined(Places(root, bound, place)[bound <= 0])


def plainly(roots, table, points, timeout=math.inf, limit=math.inf):
    """(margin, problems, seconds, example) of an image with these roots."""
    margin, count, seconds, example, queue = math.inf, 0, 1, None, []

    def put(root, place):
        nonlocal margin, count, example
        bound, count = float(table[root, place]), count + 1
        example = points[root, place] if example is None and points[root, place] > 0.5 else example
        if bound > 0:
            margin = min(margin, bound)
        else:
            heapq.heappush(queue, (bound, root, place))

    for root in roots:
        put(root, 1)
    while queue and example is None and seconds < timeout and count < limit:
        bound, root, place = heapq.heappop(queue)
        seconds += 1
        if place < 2 ** (DEPTH - 1):
            put(root, 2 * place)
            put(root, 2 * place + 1)
        else:
            margin = min(margin, bound)
    return min([margin, *(bound for bound, _, _ in queue)]), count, seconds, example


@pytest.mark.parametrize(
    ("many", "examples", "limits"),
    [
        (1000, 0.0, {}),
        *((1, share, {}) for share in (0.0, 0.02)),
        *((1, 0.02, limits) for limits in ({"timeout": 4}, {"limit": 7}, {"timeout": 9, "limit": 12})),
    ],
)
def test_every_image_is_decided_as_it_is_alone(many, limits, examples, monkeypatch):
    """Its problems that are not proved are divided, lowest bounds first, until there is an example or a limit
    is reached; where nothing ends it early, in any batches."""
    for number, roots in enumerate(4 * ((0, 1, 2, 3, 1, 2, 3, 3), (2,))):
        n, key = len(roots), rng.keys(number, "trees", torch.arange(sum(roots)))
        table = rng.normal(key, (2**DEPTH,)).double() - 1.0
        for place in range(2, 2**DEPTH):  # a part has no lower bound than the whole
            table[:, place] = table[:, place // 2] + table[:, place].abs()
        points = torch.where(rng.uniform(key + 1, (2**DEPTH,)) < examples, 9.0, -9.0)
        clock = [5.0]
        monkeypatch.setattr(module.time, "perf_counter", lambda clock=clock: clock[0])
        search, seen = Trees(roots, table, points, many, clock, **limits), {}
        for one in search.decide(torch.full((n, 1, 1, 1), 0.5), torch.zeros(n, dtype=torch.int64)):
            assert one.row not in seen
            seen[one.row] = one
            assert search.facts["open"] == n - len(seen)
        assert len(seen) == n
        for row, one in seen.items():
            own = range(sum(roots[:row]), sum(roots[: row + 1]))
            *wanted, example = plainly(own, table, points, **limits)
            assert (one.margin, one.problems, one.seconds) == pytest.approx(tuple(wanted))
            assert (one.example is None) == (example is None) and one.rounding == row / 8
        total = sum(one.seconds for one in seen.values())
        assert total == pytest.approx(clock[0] - 5)
        assert search.facts["subproblems/s"] == pytest.approx(sum(o.problems for o in seen.values()) / total)
