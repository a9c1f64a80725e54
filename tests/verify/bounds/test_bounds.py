"""Bounds hold at every node, are what the method can prove, and are the same whatever the batch."""

import itertools
import math
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.models.load import load_model, wrap
from advkit.verify.bounds.affine import Affine, Convolution, Dense, Normalise
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.interval import margins_at_last
from advkit.verify.bounds.linear import Bounder, differences, substitute
from advkit.verify.bounds.optimised import optimised_rows, tighten
from advkit.verify.bounds.pooling import unpooled
from advkit.verify.bounds.read import read
from advkit.verify.bounds.reduced import products, products_reduced, reduced
from advkit.verify.bounds.relaxation import MaxPool, Relu
from advkit.verify.bounds.rounding import Float32, float32_error, gamma, roundings
from advkit.verify.bounds.window import Window, windowed_path

CPU = torch.device("cpu")
THREATS = [Threat("linf", 0.05), Threat("l2", 0.15), Threat("l1", 0.3)]
METHODS = ("interval", "linear", "optimised")


def fine(model, **options):
    """A bounder all of whose rows are in float64."""
    torch.set_float32_matmul_precision("medium")
    try:
        return Bounder(read(model), CPU, **options)
    finally:
        torch.set_float32_matmul_precision("highest")


def values(graph, x):
    found = [x]
    for node in graph.nodes[1:]:
        found.append(node.op.apply(*(found[i] for i in node.inputs)))
    return found


@torch.no_grad()
def proved(bounder, x, threat, label, method):
    """(bounds, margins)"""
    bounds = bounder.interval(Ball(x, threat)) if method == "interval" else bounder.linear(Ball(x, threat))
    if method == "interval":
        margins = margins_at_last(bounder.fine, bounds.lower, bounds.upper, label) - bounder.off(
            bounds, label
        )
        return bounds, margins.scatter(1, label[:, None], 0)
    margins = bounder.margins(bounds, label)
    if method == "optimised":
        index, other = (nn.functional.one_hot(label, 3) == 0).nonzero(as_tuple=True)
        needed = torch.full((len(index),), torch.inf, dtype=torch.float64)
        margins[index, other] = optimised_rows(bounder, bounds, index, label[index], other, needed)
    return bounds, margins


@pytest.fixture(scope="module", params=range(42))
def case(request, networks):
    """A network, two images, a threat model, and what is proved of them; some are wide enough for windows."""
    number, n = request.param, networks
    pieces = [*[n.conv][number % 2 :], n.PIECES[number % len(n.PIECES)], n.relu, n.conv, n.relu]
    wide = number >= 33
    if wide:
        first = [n.max_pool, n.conv, n.constant][number % 3]
        pieces = [first, n.norm, n.leaky, n.conv, n.relu, n.conv, n.relu]
    model, x = n.network(number, *pieces, scales=number % 5 == 4, wide=wide)
    threat, label = THREATS[number % 3], model(x).argmax(1)
    if number % 6 == 5:
        threat = Threat(threat.norm, threat.eps / 50)
    bounder = fine(model) if number % 4 == 3 else Bounder(read(model), CPU)
    assert bounder.strict == (number % 4 != 3)
    found = {method: proved(bounder, x, threat, label, method) for method in METHODS}
    return SimpleNamespace(model=model, x=x, threat=threat, label=label, bounder=bounder, found=found)


class Reference:
    """What the bounds of an image's nodes should be, of those of the nodes before: by matrices."""

    def __init__(self, bounder, bounds, i, rows):
        self.graph, self.strict, self.exact = bounder.fine, bounder.strict, bounder.exact
        self.norm, self.eps, self.x, self.rows = (
            bounds.ball.norm,
            bounds.ball.eps,
            bounds.ball.x[i].flatten(),
            rows,
        )
        sides = (bounds.lower, bounds.upper, bounds.reach)
        self.low, self.high, self.reach = ([part[i].flatten() for part in side] for side in sides)
        self.parts, self.errors = [None], [torch.zeros_like(self.x)]

    def expected(self, k):
        """(low, high, reach, how far rounding may take the first two) of the node ``k``."""
        node = self.graph.nodes[k]
        if isinstance(node.op, Affine):
            return self._affine(k, node)
        (i,), shape = node.inputs, (1, *self.graph.nodes[node.inputs[0]].shape)
        low, high, error = (part[i].view(shape) for part in (self.low, self.high, self.errors))
        lines = self._relu if isinstance(node.op, Relu) else self._pool
        below, above, shift, ways = lines(node.op, low.flatten(), high.flatten(), shape)
        self.parts.append((below, above, shift))
        low, most, error = (node.op.apply(part).flatten() for part in (low, high, error))
        if isinstance(node.op, Relu):  # what is surely negative is 0 without any error
            own = gamma(2, torch.float32) * (torch.maximum(low.abs(), most.abs()) + error)
            passes = (high.flatten() + error > 0) | ~self._cut(node.op, shape[1:])
            error = torch.where(passes, error, node.op.slope * error) + (own if node.op.slope else 0)
        self.errors.append(error)
        return low, most, (ways * self.reach[i]).amax(1) + shift.abs(), torch.zeros(len(shift))

    def _affine(self, k, node):
        shapes = [self.graph.nodes[i].shape for i in node.inputs]
        zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
        offset, weights = node.op.apply(*zeros).flatten(), []
        for i, zero in enumerate(zeros):
            units = torch.eye(zero.numel(), dtype=torch.float64).view(-1, *shapes[i])
            given = [units if j == i else one.expand(len(units), *shapes[j]) for j, one in enumerate(zeros)]
            weights.append(node.op.linear(*given).flatten(1).T)
        self.parts.append((weights, offset))
        size = offset.abs()
        if isinstance(node.op, Normalise):
            bias = node.op.bias.expand(node.shape).flatten()
            size = bias.abs() + (bias - offset).abs()
        low, high, reach, error, rounded = offset, offset, size, 0, size
        terms = torch.full_like(offset, node.op.terms)
        for i, weight in zip(node.inputs, weights, strict=True):
            up, down = weight.clamp(min=0), weight.clamp(max=0)
            low = low + up @ self.low[i] + down @ self.high[i]
            high = high + up @ self.high[i] + down @ self.low[i]
            reach, error = reach + weight.abs() @ self.reach[i], error + weight.abs() @ self.errors[i]
            computed = torch.maximum(self.low[i].abs(), self.high[i].abs()) + self.errors[i]
            rounded = rounded + weight.abs() @ computed
            if isinstance(node.op, Dense | Convolution):  # a term that is 0 is exact; one more, and the bias
                terms = 2 + (weight != 0).double() @ (computed > 0).double()
        self.errors.append(error + gamma(terms, torch.float32) * rounded)
        pooled = [low, high]
        if node.also is not None:  # the model compares without rounding
            pool, source = node.also
            sides, shape = (self.low, self.high, self.errors), self.graph.nodes[source].shape
            *pooled, self.errors[-1] = (pool.apply(side[source].view(1, *shape)).flatten() for side in sides)
        near, far = (
            4 * gamma(roundings(self.graph, k, d), d) * reach for d in (torch.float64, torch.float32)
        )
        low, high = low - near, high + near
        if node.also is not None:
            low, high = torch.maximum(low, pooled[0]), torch.minimum(high, pooled[1])
        asked = self._asked(k, low, high) & (self.rows and (self.norm != "linf" or k not in self.exact))
        off = torch.where((far < 0.01 * (high - low)) & self.strict, far, near)
        eye = torch.eye(len(low), dtype=torch.float64)
        below, above = self.least(k, eye) - off, off - self.least(k, -eye)
        low = torch.where(asked, torch.maximum(low, below), low)
        return low, torch.where(asked, torch.minimum(high, above), high), reach, off

    def _asked(self, k, low, high):
        """Of undecided signs, and of what a max pooling compares, also after ReLUs."""
        asked = torch.zeros(len(low), dtype=torch.bool)
        for j, reader in enumerate(self.graph.nodes):
            if k not in reader.inputs or isinstance(reader.op, Affine):
                continue
            if isinstance(reader.op, Relu):
                slope = torch.where(low < 0, reader.op.slope, 1), torch.where(high < 0, reader.op.slope, 1)
                asked |= (low < 0) & (high > 0) & self._cut(reader.op, reader.shape)
                asked |= self._asked(j, slope[0] * low, slope[1] * high)
            else:
                asked |= low < high
        return asked

    def _cut(self, op, shape):
        """Which of the values the ReLU ``op`` is applied to."""
        return torch.tensor(op.cut).repeat(shape[0] // len(op.cut)).repeat_interleave(math.prod(shape[1:]))

    def _relu(self, op, low, high, shape):
        cut = self._cut(op, shape[1:])
        unsure = (low < 0) & (high > 0) & cut
        side = torch.where((high > 0) | ~cut, torch.ones_like(low), op.slope)
        chord = torch.where(unsure, (high - op.slope * low) / (high - low), side)
        below, ways = torch.where(unsure & (high <= -low), op.slope, side), torch.where(unsure, 1, side)
        return *map(torch.diag, (below, chord)), torch.where(unsure, high - chord * high, 0), torch.diag(ways)

    def _pool(self, op, low, high, shape):
        units = 2 * torch.eye(len(low), dtype=torch.float64).view(-1, *shape[1:]) - 1
        seen = (op.apply(units) > 0).flatten(1).T
        below, above, ways = torch.zeros(3, *seen.shape, dtype=torch.float64)
        shift = torch.zeros(len(seen), dtype=torch.float64)
        for out, window in enumerate(seen):
            inputs = window.nonzero()[:, 0].tolist()
            j, lowest = max(inputs, key=high.__getitem__), max(inputs, key=(low + high).__getitem__)
            rest = max([high[i] for i in inputs if i != j] + [low[j]])
            below[out, lowest] = ways[out, lowest] = ways[out, j] = 1
            above[out, j] = (high[j] - rest) / (high[j] - low[j]) if rest > low[j] else 1
            shift[out] = rest - above[out, j] * low[j]
        return below, above, shift, ways

    def at_last(self, a):
        """(R,) the least of linear functions (R, K) of the logits, the last one's inputs moving freely."""
        weights, offset = self.parts[-1]
        total = a @ offset
        for i, weight in zip(self.graph.nodes[-1].inputs, weights, strict=True):
            back = a @ weight
            total = total + back.clamp(min=0) @ self.low[i] + back.clamp(max=0) @ self.high[i]
        return total

    def least(self, k, a, slopes=None):
        """(R,) the least of linear functions (R, values) of the node ``k``."""
        pending, total = {k: a}, torch.zeros(len(a), dtype=torch.float64)
        for j in range(k, 0, -1):
            if j not in pending:
                continue
            a, node = pending.pop(j), self.graph.nodes[j]
            if isinstance(node.op, Affine):
                weights, offset = self.parts[j]
                parts, total = [a @ weight for weight in weights], total + a @ offset
            else:
                below, above, shift = self.parts[j]
                if slopes and isinstance(node.op, Relu):
                    below = torch.where(shift > 0, torch.diag(slopes[j]), below)
                parts = [a.clamp(min=0) @ below + a.clamp(max=0) @ above]
                total = total + a.clamp(max=0) @ shift
            for i, part in zip(node.inputs, parts, strict=True):
                pending[i] = pending.get(i, 0) + part
        a = pending[0]
        least = a.clamp(min=0) @ self.low[0] + a.clamp(max=0) @ self.high[0]
        if self.norm != "linf":
            room = torch.where(a > 0, self.x - self.low[0], self.high[0] - self.x)
            least = torch.maximum(
                least, a @ self.x - (a.abs() * moved(a.abs(), room, self.norm, self.eps)).sum(1)
            )
        return total + least


@torch.no_grad()
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_bounds_and_rounding_are_what_the_method_says(case, method):
    """To a tenth of what rounding is allowed."""
    bounder, label, (bounds, margin) = case.bounder, case.label, case.found[method]
    wide, last, image = case.threat.eps + case.threat.slack, len(bounder.fine) - 1, torch.arange(2)
    assert torch.equal(bounds.lower[0], (case.x.double() - wide).clamp(0, 1))
    assert torch.equal(bounds.upper[0], (case.x.double() + wide).clamp(0, 1))
    assert torch.equal(bounds.reach[0], case.x.double() + wide)
    free = [k for k in bounds.relaxed if isinstance(bounder.fine.nodes[k].op, Relu)]
    slopes = {k: rng.uniform(rng.keys(k, "slope", image), bounds.lower[k].shape[1:]).double() for k in free}
    sloped = bounder.rows(bounds, image, label, (label + 1) % 3, slopes)
    share = 4 * gamma(roundings(bounder.fine, last, torch.float64), torch.float64)
    error, eye = float32_error(bounder.fine, bounds.lower, bounds.upper), torch.eye(3, dtype=torch.float64)
    for i, other in enumerate((label + 1) % 3):
        truth = Reference(bounder, bounds, i, method == "linear")
        for k, node in enumerate(bounder.fine.nodes[1:], 1):
            low, high, reach, near = truth.expected(k)
            assert torch.allclose(truth.reach[k], reach, rtol=1e-9, atol=0), node
            assert ((truth.low[k] - low).abs() <= 0.1 * near).all(), node
            assert ((truth.high[k] - high).abs() <= 0.1 * near).all(), node
        assert torch.allclose(error[i], truth.errors[-1], rtol=1e-9, atol=0)
        off = share * (truth.reach[last] + truth.reach[last][label[i]])
        assert torch.allclose(bounder.off(bounds, label)[i], off, rtol=1e-9, atol=0)
        rows = eye[label[i]] - eye
        least = (truth.least(last, rows) if method == "linear" else truth.at_last(rows)) - off
        assert ((margin[i] - least).abs() <= 0.1 * off)[eye[label[i]] == 0].all() and margin[i, label[i]] == 0
        least = truth.least(last, rows[other, None], {k: slope[i].flatten() for k, slope in slopes.items()})
        assert (sloped[i] - least + off[other]).abs() <= 0.1 * off[other]


def test_open_signs_are_counted_for_each_image(case):
    bounds, nodes = case.found["interval"][0], case.bounder.fine.nodes
    wanted = [0, 0]
    for node in nodes:
        if isinstance(node.op, Relu):
            low, high = (side[node.inputs[0]] for side in (bounds.lower, bounds.upper))
            for i in range(2):
                wanted[i] += int(node.op.open(low[i : i + 1], high[i : i + 1]).sum())
    assert case.bounder.unsure(bounds).tolist() == wanted


def found(case, tries=6):
    """(T, N, C, H, W) points of the ball: random ones, corners, and the ends of gradient steps."""
    points, x, threat = [], case.x, case.threat
    for t in range(tries):
        keys = rng.keys(t, "points", torch.arange(2))
        start = threat.sample(x, keys).requires_grad_(True)
        every = torch.cat([value.flatten(1) for value in values(case.bounder.coarse, start)], 1)
        (slant,) = torch.autograd.grad((every * rng.normal(keys, every.shape[1:])).sum(), start)
        moves = (threat.ascent(slant), threat.ascent(rng.normal(keys + 1, x.shape[1:])))
        ends = (start.detach() + threat.eps * moves[0], x + threat.eps * moves[1])
        points += [start.detach(), *(threat.project(end, x) for end in ends)]
    return torch.stack(points)


def test_nothing_is_outside_the_bounds(case):
    points, graph = found(case), case.bounder.fine
    with torch.no_grad():
        seen = [value.view(-1, 2, *value.shape[1:]) for value in values(graph, points.double().flatten(0, 1))]
        computed = case.model(points.flatten(0, 1)).view_as(seen[-1]).double()
        own = case.label.expand(len(points), -1)[..., None]
        least = (seen[-1].gather(2, own) - seen[-1]).amin(0)
        for bounds, margins in case.found.values():
            for low, value, high in zip(bounds.lower, seen, bounds.upper, strict=True):
                near = 1e-15 * value.abs()  # of the points' own arithmetic
                assert ((low - near <= value) & (value <= high + near)).all()
            assert (margins <= least + 1e-15 * seen[-1].abs().max()).all() and margins.isfinite().all()
            assert ((computed - seen[-1]).abs() <= float32_error(graph, bounds.lower, bounds.upper)).all()
    assert (case.found["linear"][1] <= case.found["optimised"][1]).all()


def noisy(graph, x, rows, label):
    """(exact, computed) leads (N, K) of the true logits, where rounding does most to those of ``rows``."""

    def passed(deltas, scaled):
        seen = [x]
        for k, node in enumerate(graph.nodes[1:], 1):
            before = [seen[i] for i in node.inputs]
            z = node.op.apply(*before)
            if isinstance(node.op, Affine):
                sizes = [part.abs() for part in before]
                own = gamma(node.op.roundings(*sizes), torch.float32) * node.op.size(*sizes)
            else:
                leaky = isinstance(node.op, Relu) and node.op.slope
                own = gamma(2, torch.float32) * z.abs() if leaky else torch.zeros_like(z)
            seen.append(z + (deltas[k] * own if scaled else deltas[k]))
        return seen[-1].gather(1, label[:, None]) - seen[-1]

    deltas = [
        torch.zeros(len(x), *node.shape, dtype=torch.float64, requires_grad=True) for node in graph.nodes
    ]
    exact = passed(deltas, False)
    slants = torch.autograd.grad((exact * rows).sum(), deltas[1:], materialize_grads=True)
    signs = [deltas[0], *(slant.sign() for slant in slants)]
    return exact.detach(), passed(signs, True).detach()


def test_the_worst_rounding_is_within_the_deduction(case):
    """Every operation adds all that it may, with the sign that hurts."""
    graph, bounds = read(case.model).to(CPU, torch.float64), case.found["linear"][0]
    with torch.no_grad():
        deducted = case.bounder.rounding(bounds, case.label)
        alone, by_rows = (
            Float32(case.bounder.fine, bounds.lower, bounds.upper, parts)
            for parts in (None, case.bounder._parts)
        )
        plain = alone.errors[-1]
        plain = plain + plain.gather(1, case.label[:, None])
    assert all(map(torch.equal, alone.errors, alone.plain))
    for error, most in zip(by_rows.errors, by_rows.plain, strict=True):
        assert (error <= most).all()
    assert (deducted <= plain * (1 + 1e-6)).all()
    for point in found(case, 2):
        for other in range(3):
            rows = nn.functional.one_hot(torch.tensor([other, other]), 3)
            exact, computed = noisy(graph, point.double(), rows, case.label)
            assert ((computed - exact).abs() <= deducted * (1 + 1e-8)).all()  # of the points' own arithmetic


@pytest.mark.parametrize("slope", [0.0, 0.25])
@torch.no_grad()
def test_the_deduction_is_what_the_worst_rounding_takes(slope):
    """On a small ball."""
    with rng.scope("cpu", 7, "deep"):
        sizes = [nn.Linear(*pair) for pair in [(5, 9), (9, 8), (8, 7), (7, 3)]]
    layers = [part for size in sizes for part in (size, nn.LeakyReLU(slope) if slope else nn.ReLU())][:-1]
    model = wrap(nn.Sequential(nn.Flatten(), *layers), shape=(1, 1, 5)).eval()
    bounder, x = fine(model), rng.uniform(torch.arange(4), (1, 1, 5))
    graph, label = read(model).to(CPU, torch.float64), torch.tensor([0, 1, 2, 0])
    bounds = bounder.linear(Ball(x, Threat("linf", 1e-6)))
    deducted, other = bounder.rounding(bounds, label), (label + 1) % 3
    with torch.enable_grad():
        exact, computed = noisy(graph, x.double(), nn.functional.one_hot(other, 3), label)
    reached = ((computed - exact).abs() / deducted).gather(1, other[:, None])
    assert (reached <= 1).all() and (reached > 0.99).all()


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_bounds_are_never_above_the_exact_minimum_and_the_best_are_near(slope, exact):
    short, label, threat = [], torch.tensor([1]), Threat("linf", 0.3)
    for number in range(2):
        with rng.scope("cpu", number, "exact"):
            sizes = [nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(2, 3)]
        for layer in sizes:
            layer.weight.data.mul_(2)
        between = [layer for size in sizes for layer in (nn.LeakyReLU(slope), size)][1:]
        bounder = fine(wrap(nn.Sequential(nn.Flatten(), *between), shape=(1, 1, 3)).eval())
        x = 0.2 + 0.6 * rng.uniform(rng.keys(number, "exact", torch.arange(1)), (1, 1, 3))
        got = [proved(bounder, x, threat, label, method)[1][0, [0, 2]] for method in METHODS]
        plain = [[part.detach().double().numpy() for part in layer.parameters()] for layer in sizes]
        truth = exact.smallest(plain, Ball(x, threat), numpy.array([[-1.0, 1, 0], [0, 1, -1]]), slope)
        short.append(truth - torch.stack(got))
        rows = (torch.zeros(2, dtype=torch.long), label.expand(2), torch.tensor([0, 2]))
        needed = torch.tensor([torch.inf, -torch.inf]).double()  # the second row is content
        with torch.no_grad():
            some = optimised_rows(bounder, bounder.linear(Ball(x, threat)), *rows, needed)
        assert torch.allclose(some, torch.stack([got[2][0], got[1][1]]), rtol=1e-6)
    assert (torch.stack(short) >= -1e-8).all()  # what linprog leaves open
    mean = torch.stack(short).mean((0, 2))
    assert mean[2] < 0.12 * mean[1]


def test_hidden_neurons_are_tightened_but_where_windows_reach_the_images(monkeypatch):
    deep = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)),
    )
    with rng.scope("cpu", 0, "tighten"):
        for parameter in deep.parameters():
            nn.init.normal_(parameter, 0, 0.5)
        x, points = torch.rand(2, 1, 6, 6), torch.rand(500, 1, 6, 6)
    bounder = fine(wrap(deep, shape=(1, 6, 6)).eval())
    bounds = bounder.linear(Ball(x, Threat("linf", 0.1)))
    each, by_rows = (
        Float32(bounder.fine, bounds.lower, bounds.upper, parts).errors
        for parts in (None, lambda count, _: iter([slice(count)]))
    )
    before = [(low.clone(), high.clone()) for low, high in zip(bounds.lower, bounds.upper, strict=True)]
    tighten(bounder, bounds)
    nodes = bounder.fine.nodes
    into = [node.inputs[0] for node in nodes if isinstance(node.op, Relu)]
    narrower = [
        bool((bounds.upper[k] - bounds.lower[k] < before[k][1] - before[k][0] - 1e-6).any()) for k in into
    ]
    assert narrower == [False, False, True] == [bool((by_rows[k] < each[k]).any()) for k in into]
    for row in range(2):
        inside = (x[row] + 0.1 * (2 * points - 1)).clamp(0, 1)
        for k, seen in enumerate(values(bounder.fine, inside.double())):
            assert ((seen >= bounds.lower[k][row]) & (seen <= bounds.upper[k][row])).all()
    found = []
    for share in (0.0, 1e-3):  # of the reach, taken off for rounding
        monkeypatch.setattr(bounder, "off_at", lambda place, share=share: share)
        found.append(bounder.linear(Ball(x, Threat("linf", 0.1))))
        tighten(bounder, found[-1])
    k, reach = into[-1], 1e-3 * bounds.reach[into[-1]]
    for side, sign, old in (("lower", 1, before[into[-1]][0]), ("upper", -1, before[into[-1]][1])):
        free, less = (getattr(one, side)[k] for one in found)
        moved = less != old
        assert moved.any() and torch.allclose((free - less)[moved], sign * reach[moved], rtol=1e-6)


def test_slopes_are_searched_by_adam_until_enough_is_proved():
    with rng.scope("cpu", 5, "adam"):
        sizes = [
            nn.Flatten(),
            nn.Linear(6, 9),
            nn.ReLU(),
            nn.Linear(9, 8),
            nn.LeakyReLU(0.1),
            nn.Linear(8, 3),
        ]
    for layer in sizes[1::2]:
        layer.weight.data.mul_(2)
    bounder, x = (
        fine(wrap(nn.Sequential(*sizes), shape=(1, 2, 3)).eval()),
        rng.uniform(torch.arange(16), (1, 2, 3)),
    )
    ball, last = Ball(x, Threat("linf", 0.2)), len(bounder.fine) - 1
    label = torch.arange(16) % 3
    rows = (torch.arange(16), label, (label + 1) % 3)
    with torch.no_grad():
        bounds = bounder.linear(ball)

        def reached(needed, **options):
            return optimised_rows(
                bounder, bounds, *rows, torch.as_tensor(needed).double().expand(16), **options
            )

        few, many, linear = reached(torch.inf, steps=5), reached(torch.inf), bounder.rows(bounds, *rows)
        edge = few - 1e-4  # beyond which a row leaves after five steps
        enough, more = (torch.where(end > 0, end / 1.1, end / 0.9) for end in (edge, edge + 2e-4))
        stays = (linear < enough) & (many > few + 1e-3)
        assert stays.sum() > 1 and torch.allclose(reached(enough)[stays], few[stays], atol=1e-6)
        assert (reached(more)[stays] > few[stays] + 1e-4).all()
        assert torch.equal(reached(linear - 1e-9), linear)
    relaxed = {k: lines.to(torch.float32) for k, lines in bounds.relaxed.items()}
    slopes = {k: lines.lower.clone().requires_grad_() for k, lines in relaxed.items()}
    adam = torch.optim.Adam(slopes.values(), lr=0.2, eps=1e-12, maximize=True)
    slower, best, peak = torch.optim.lr_scheduler.ExponentialLR(adam, 0.96), {}, torch.full((16,), -torch.inf)
    for _ in range(30):
        a = differences(*rows[1:], 3, torch.float32)
        value = substitute(bounder.coarse, relaxed, ball, last, a, rows[0], slopes)
        adam.zero_grad()
        value.sum().backward()
        best = {
            k: torch.where((value > peak)[:, None], s.detach(), best.get(k, s.detach()))
            for k, s in slopes.items()
        }
        peak = torch.maximum(value.detach(), peak)
        adam.step()
        slower.step()
        for k, slope in slopes.items():
            slope.data.clamp_(bounder.fine.nodes[k].op.slope, 1)
    with torch.no_grad():
        truth = bounder.rows(bounds, *rows, {k: slope.double() for k, slope in best.items()})
    assert torch.allclose(many, torch.maximum(truth, linear), atol=1e-4)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_slopes_end_where_they_are_sound(networks, slope):
    """Slopes outside [slope, 1] would prove too much of f(z) - 1.5 z and f(z) + (0.5 - slope) z."""
    last = nn.Linear(2, 3)
    last.weight.data = torch.tensor([[0, 0], [1.5, -1], [slope - 0.5, -1]])
    both = networks.Call(lambda s, z: torch.cat([z, nn.functional.leaky_relu(z, slope)], 1))
    layers = nn.Sequential(nn.Flatten(), networks.Call(lambda s, x: 3 * x - 1), both, last)
    bounder = fine(wrap(layers, shape=(1, 1, 1)).eval())
    x, bias = torch.full((1, 1, 1, 1), 0.5), last.bias.detach().double()
    _, margin = proved(bounder, x, Threat("linf", 0.5), torch.tensor([0]), "optimised")
    truth = torch.tensor([0, -1, -0.5]).double() + bias[0] - bias
    assert torch.allclose(margin[0], truth, atol=1e-5)


def test_windows_are_as_large_as_is_said_and_hold_what_the_planes_do(networks):
    """The last network's windows have more values than are multiplied as a matrix."""
    layers = nn.Conv2d(1, 64, (2, 3)), nn.Conv2d(64, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(25, 3)
    drawn = [
        networks.network(k, networks.conv, networks.relu, networks.conv, wide=True)[0]
        for k in range(500, 512)
    ]
    seen = 0
    for model in [*drawn, wrap(nn.Sequential(*layers), shape=(1, 8, 9)).eval()]:
        graph = read(model).to(CPU, torch.float64)
        for k, node in enumerate(graph.nodes):
            size = torch.Size(node.shape).numel()
            neuron = torch.arange(0, size, 1 + size // 99)
            sign = rng.signs(rng.keys(0, "sign", neuron), ())
            plane = (nn.functional.one_hot(neuron, size) * sign[:, None]).double().view(-1, *node.shape)
            steps = windowed_path(graph, k)
            window = Window.at(neuron, sign, node.shape, torch.float64) if steps else None
            for step in steps:
                op = graph.nodes[step.place].op
                if isinstance(op, Convolution):
                    window, (plane,) = window.convolved_back(op), op.transpose(plane)
                    seen += 1
                assert window.a.shape[1:] == step.size and torch.allclose(window.whole(), plane)
    assert seen > 12


def test_windows_end_where_a_convolution_sees_the_whole_plane():
    """Before the second convolution they are narrow; the first one's kernel is as large as the image."""
    with rng.scope("cpu", 2, "whole"):
        convolutions = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 2)
        layers = [convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)]
    bounder, x = fine(wrap(nn.Sequential(*layers), shape=(1, 4, 4)).eval()), torch.full((1, 1, 4, 4), 0.5)
    steps = windowed_path(bounder.fine, 3)
    first = bounder.fine.nodes[steps[-1].place].inputs[0]
    assert isinstance(bounder.fine.nodes[first].op, Convolution)
    with torch.no_grad():
        ball = Ball(x, Threat("linf", 0.3))
        bounds, interval = bounder.linear(ball), bounder.interval(ball)
        eye = torch.eye(18, dtype=torch.float64).view(-1, 2, 3, 3)
        index = torch.zeros(18, dtype=torch.int64)
        least = substitute(bounder.fine, bounds.relaxed, bounds.ball, 3, eye, index)
    asked = (interval.lower[3] < 0) & (interval.upper[3] > 0)
    least = torch.where(asked, torch.maximum(interval.lower[3], least.view(asked.shape)), interval.lower[3])
    assert asked.sum() > 9 and torch.allclose(bounds.lower[3], least, atol=1e-9)


def test_windows_go_through_what_scales_whole_channels(networks):
    """As normalisation does, and a product with a constant of every pixel does not."""
    product = networks.Call(lambda s, x: s.c * x, c=torch.ones(2, 7, 7))
    for number, between in enumerate((nn.BatchNorm2d(2), product)):
        layers = nn.Conv2d(2, 2, 2), between, nn.Conv2d(2, 2, 2), nn.Flatten(), nn.Linear(72, 3)
        model = load_model(nn.Sequential(*layers), shape=(2, 8, 8), mean=(0.5, 0.4), std=(0.5, 0.6))
        steps = windowed_path(read(model), 4)
        assert [step.place for step in steps] == [4, 3, 2, 1][: 1 if number else 4]
        assert [step.size for step in steps] == [(2, 2, 2), (2, 2, 2), (2, 3, 3), (2, 3, 3)][: len(steps)]


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_lines_enclose_a_relu_and_are_exact_where_its_sign_is_known(slope):
    ends = torch.tensor(
        [pair for pair in itertools.product((-2.0, -1.0, 0.0, 1.0), repeat=2) if pair[0] <= pair[1]]
    )
    (lower, upper), relu = ends.double().T, Relu(slope)
    lines, known = relu.relaxed(lower, upper), (lower >= 0) | (upper <= 0)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        z = lower + share * (upper - lower)
        below, value, above = lines.lower * z, relu.apply(z), lines.upper * z + lines.shift
        assert (below <= value + 1e-12).all() and (value <= above + 1e-12).all()
        assert torch.allclose(below[known], value[known]) and torch.allclose(above[known], value[known])


@torch.no_grad()
@pytest.mark.parametrize("between", [(), (nn.ReLU(),), (nn.ReLU(), nn.LeakyReLU())])
def test_what_a_pooling_compares_is_bounded_by_rows(between):
    """In l2 the ends of a difference of pixels lie eps times the root of their number away."""
    sums = nn.Conv2d(1, 1, 2)
    sums.weight.data, sums.bias.data = torch.ones(1, 1, 2, 2), torch.zeros(1)
    layers = nn.Sequential(sums, *between, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 3))
    bounder, threat = fine(wrap(layers, shape=(1, 3, 3)).eval()), Threat("l2", 0.1)
    bounds = bounder.linear(Ball(torch.full((1, 1, 3, 3), 0.5), threat))
    wide, first = 2 * (threat.eps + threat.slack), 2 + len(between)
    ends = torch.stack([-bounds.lower[first], bounds.upper[first]]).flatten(1)[:, ::2]
    assert torch.allclose(ends, torch.full((2, 2), wide).double())


POOLED = [
    (nn.MaxPool2d(2), True),
    (nn.MaxPool2d((1, 2), 1), True),
    (nn.MaxPool2d(3, 2, 1), False),  # values beside the edge may be negative
    (nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)), True),
    (nn.Sequential(nn.LeakyReLU(), nn.MaxPool2d(3, 2, 1)), False),
    (nn.MaxPool2d(4, 1, dilation=(2, 1)), True),
    (nn.MaxPool2d((3, 1), 2, dilation=2), True),
    (nn.MaxPool2d((1, 17)), False),
    (nn.MaxPool2d(1), False),
    (nn.MaxPool2d((2, 3), (2, 3), ceil_mode=True), False),
    (nn.MaxPool2d((3, 2), (3, 1), ceil_mode=True), False),
    (nn.MaxPool2d((2, 5), (2, 7), ceil_mode=True), True),
]


@torch.no_grad()
@pytest.mark.parametrize(("pool", "fits"), POOLED)
def test_a_tournament_has_the_same_winner(pool, fits):
    x = rng.normal(torch.arange(5), (3, 8, 19)).double()
    graph = read(wrap(nn.Sequential(pool, nn.Flatten()), shape=(3, 8, 19)).eval())
    changed = unpooled(graph)
    assert fits == all(not isinstance(node.op, MaxPool) for node in changed.nodes)
    assert fits or len(changed) == len(graph)
    changed = changed.to(CPU, torch.float64)
    assert torch.allclose(changed.forward(x), graph.forward(x), rtol=1e-12, atol=1e-12)
    seen = values(changed, x)
    for node, value in zip(changed.nodes, seen, strict=True):
        if node.also is not None:
            assert torch.allclose(node.also[0].apply(seen[node.also[1]]), value, rtol=1e-12, atol=1e-12)
    assert fits == any(node.also is not None for node in changed.nodes)


def written(channels):
    """2x2 max pooling of values that are at least 0, by convolutions and ReLUs."""
    weights = [
        torch.tensor([[[[1, -1], [0, 0]]], [[[0, 1], [0, 0]]], [[[0, 0], [1, -1]]], [[[0, 0], [0, 1]]]]),
        torch.tensor([[1, 1, -1, -1], [0, 0, 1, 1]])[..., None, None],
        torch.ones(1, 2, 1, 1),
    ]
    layers = []
    for number, weight in enumerate(weights):
        many = weight.repeat(channels, 1, 1, 1).float()
        layer = nn.Conv2d(
            many.shape[1] * channels, len(many), many.shape[2:], 2 - (number > 0), groups=channels
        )
        layer.weight.data, layer.bias.data = many, torch.zeros(len(many))
        layers += [layer, nn.ReLU()]
    return layers[:-1]


@torch.no_grad()
@pytest.mark.parametrize("threat", THREATS)
def test_a_pooling_is_bounded_as_well_as_the_same_by_relus(threat):
    """On average, and within a little of the values for each."""
    gained = []
    for number in range(4):
        with rng.scope("cpu", number, "pooled"):
            first, second, last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 2), nn.Linear(8, 3)
        for layer in (first, second, last):
            layer.weight.mul_(2)
        x = rng.uniform(rng.keys(number, "pooled", torch.arange(2)), (1, 4, 6))
        found = []
        for pool in ([nn.MaxPool2d(2)], written(3)):
            layers = [first, nn.ReLU(), *pool, second, nn.ReLU(), nn.Flatten(), last]
            model = wrap(nn.Sequential(*layers), shape=(1, 4, 6)).eval()
            found.append(proved(fine(model), x, threat, model(x).argmax(1), "optimised")[1])
        gained.append(found[0] - found[1])
    assert torch.cat(gained).min() > -1e-3 and torch.cat(gained).mean() > -1e-4


EXACT = {
    8: lambda call: [
        nn.Flatten(),
        nn.Linear(3, 4),
        nn.ReLU(),
        call(lambda s, x: (1 - x).chunk(2, 1)[1] / 2),
        nn.Flatten(),
        nn.Linear(2, 3),
    ],
    3: lambda call: [nn.Conv2d(1, 2, (1, 2)), nn.BatchNorm2d(2), nn.LeakyReLU(), nn.MaxPool2d((1, 2))],
    5: lambda call: [nn.MaxPool2d((1, 2), 1), nn.ReLU(), nn.LeakyReLU(), nn.AvgPool2d((1, 2))],
    4: lambda call: [nn.LeakyReLU(), call(lambda s, x: -x), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 3)],
    0: lambda call: [call(lambda s, x: x - x), nn.ReLU()],
    1: lambda call: [nn.Flatten(), call(lambda s, x: torch.cat([x, x], 1)), nn.Linear(6, 3)],
}


@torch.no_grad()
@pytest.mark.parametrize("last", EXACT)
def test_what_counts_as_exact_is_attained(networks, last):
    """On a box of three pixels, whose corners are tried: the ends of the nodes up to ``last`` alone."""
    with rng.scope("cpu", 3, "exact"):
        layers = nn.Sequential(*EXACT[last](networks.Call), nn.Flatten())
    bounder, x = fine(wrap(layers, shape=(1, 1, 3), classes=3).eval()), torch.tensor([[[[0.3, 0.5, 0.7]]]])
    assert bounder.exact == set(range(last + 1)) and len(bounder.fine) > last + 1
    threat, label = Threat("linf", 0.4), torch.tensor([0])
    if last == 1:  # without a slope there is nothing to search for
        linear, best = (proved(bounder, x, threat, label, method)[1] for method in METHODS[1:])
        assert torch.equal(linear, best)
    ball = Ball(x, threat)
    corners = torch.cartesian_prod(*torch.cat([ball.lower, ball.upper]).flatten(1).T).view(-1, 1, 1, 3)
    for bounds in (bounder.interval(ball), bounder.linear(ball)):
        for k, seen in enumerate(values(bounder.fine, corners)[: last + 1]):
            assert torch.allclose(bounds.lower[k][0], seen.amin(0), atol=1e-9)
            assert torch.allclose(bounds.upper[k][0], seen.amax(0), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_neither_the_batch_nor_the_memory_changes_anything(networks, method):
    model, x = networks.network(300, networks.conv, networks.relu, networks.conv, networks.relu)
    label, near = model(x).argmax(1), 1e-4 if method == "optimised" else 1e-9
    one, few = fine(model), fine(model, memory=1)
    assert few.fitting(torch.float64) == 1 < one.fitting(torch.float64) == one.fitting(torch.float32) // 2
    _, whole = proved(one, x, THREATS[0], label, method)
    small = [proved(few, x[i : i + 1], THREATS[0], label[i : i + 1], method)[1] for i in range(2)]
    assert torch.allclose(torch.cat(small), whole, rtol=near, atol=near)


def test_l0_is_refused():
    with pytest.raises(ConfigError):
        Ball(torch.zeros(1, 1, 1, 3), Threat("l0", 3))


class Beside(nn.Module):
    """Both inputs of ReLUs come before both ReLUs."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.last = nn.Linear(6, 9), nn.Linear(6, 8), nn.Linear(17, 3)

    def forward(self, x):
        one, other = self.one(x.flatten(1)), self.other(x.flatten(1))
        return self.last(torch.cat([one.relu(), nn.functional.leaky_relu(other, 0.1)], 1))


@torch.no_grad()
@pytest.mark.parametrize("threat", THREATS)
def test_a_reduced_network_is_the_network_on_the_ball(threat, networks):
    """For any graph of ReLUs, in any order, poolings among them."""
    with rng.scope("cpu", 0, "beside"):
        beside = wrap(Beside(), shape=(1, 2, 3)).eval()
    cases = [(beside, rng.uniform(rng.keys(0, "x", torch.arange(2)), (1, 2, 3)))]
    for number, piece in enumerate(networks.PIECES):
        cases.append(networks.network(700 + number, networks.conv, networks.relu, piece, networks.relu))
    tried = 0
    for model, x in cases:
        bounder = fine(model)
        graph, bounds = bounder.fine, bounder.linear(Ball(x, threat))
        if not all(isinstance(graph.nodes[k].op, Relu) for k in graph.nonlinear()):
            continue
        for image in range(2):
            opened = {}
            for k in graph.nonlinear():
                low, high = (side[graph.nodes[k].inputs[0]][image] for side in (bounds.lower, bounds.upper))
                opened[k] = graph.nodes[k].op.open(low[None], high[None])[0]
            small = reduced(graph, bounds, image, opened, rows=3)
            points = threat.sample(x[[image]].repeat(200, 1, 1, 1), rng.keys(1, "p", torch.arange(200)))
            wanted = graph.forward(points.double())
            assert torch.allclose(
                small.forward(points.double()), wanted, rtol=1e-9, atol=1e-9 * wanted.abs().max()
            )
            assert products_reduced(graph, opened) == products(small)
            assert sum(small.nodes[k].shape[0] for k in small.nonlinear()) == sum(
                map(torch.sum, opened.values())
            )
            tried += bool(opened and any(places.any() for places in opened.values()))
    assert tried > 10


def moved(steep, room, norm, eps):
    """How far values move (R, D) where a function falls most: in l1 what is steepest first; in l2 all, by one
    factor."""
    if norm == "l1":
        order = steep.argsort(1, descending=True)
        width = room.gather(1, order)
        left = (eps - width.cumsum(1) + width).clamp(min=0)
        return torch.zeros_like(room).scatter(1, order, left.minimum(width))
    low, high = (torch.full((len(steep), 1), end, dtype=torch.float64) for end in (-40.0, 40.0))
    for _ in range(200):
        middle = (low + high) / 2
        far = (steep * middle.exp()).minimum(room).norm(dim=1, keepdim=True) > eps
        low, high = torch.where(far, low, middle), torch.where(far, middle, high)
    return (steep * low.exp()).minimum(room)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("number", range(8))
def test_a_linear_function_is_least_where_the_budget_and_the_box_let_it_be(norm, number):
    """Beside the point itself: what is steepest moves first, in l1; in l2 all move, by one factor."""
    keys = rng.keys(number, "ball", torch.arange(40))
    x = (3 * rng.uniform(keys, (1, 2, 5)) - 1).clamp(0, 1)  # a third black, a third white
    a = rng.normal(rng.step(keys, 1), (1, 2, 5)) * (rng.uniform(rng.step(keys, 2), (1, 2, 5)) > 0.2)
    for eps in (0.01, 0.3, 1.0, 9.0):
        ball = Ball(x, Threat(norm, eps))
        found = ball.least(a, torch.arange(40))
        slope, start = a.flatten(1).double(), ball.x.flatten(1)
        room = torch.where(slope > 0, start - ball.lower.flatten(1), ball.upper.flatten(1) - start)
        exact = ((start - slope.sign() * moved(slope.abs(), room, norm, ball.eps)) * slope).sum(1)
        assert (found <= exact + 1e-12).all() and (found >= exact - 1e-9).all()
