"""Sigmoid and tanh: lines that are bounds in more precision than they are computed in, and tight ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import advkit
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.models.load import wrap
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.curves import FLOAT32, SLACK, Curve
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.read import read
from advkit.verify.bounds.rounding import Float32

CPU, MANY = torch.device("cpu"), 300
KINDS = ("sigmoid", "tanh")


def exact(kind, z):
    z = np.asarray(z, dtype=np.longdouble)
    return np.tanh(z) if kind == "tanh" else np.exp(-np.logaddexp(np.longdouble(0), -z))


def intervals():
    """(lower ends, upper ends): about 0 and far from it, from single points to all numbers."""
    key = rng.keys(0, "intervals", torch.arange(MANY))
    draws = rng.uniform(key, (4,)).double()
    size = 10 ** (8 * draws[:, :2] - 5)
    middle = (draws[:, 2] * 2 - 1) * size[:, 0] * 3
    low, high = middle - size[:, 1], middle + size[:, 1]
    odd = torch.tensor(
        [[0, 0], [1, 1], [-2, -2], [-1e20, 1e20], [-1e9, -30], [-800, 3], [-40, -39], [0, 1e-9]]
    )
    low[: len(odd)], high[: len(odd)] = odd.double().T
    return low, high


def points(low, high):
    """(M, N) from the lower to the upper ends, most of them near an end or near 0."""
    share = np.concatenate([np.linspace(0, 1, 201), np.geomspace(1e-18, 0.5, 120)])
    low, high = low.numpy().astype(np.longdouble), high.numpy().astype(np.longdouble)
    width = share[:, None] * (high - low)
    around = np.geomspace(1e-6, 60, 400)[:, None]
    return np.clip(
        np.concatenate([low + width, high - width, around + 0 * low, -around + 0 * low]), low, high
    )


@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_bounds_and_the_best_at_the_middle(kind):
    low, high = intervals()
    band, z = Curve(kind).relaxed(low, high), points(low, high)
    value = exact(kind, z)
    lower, below, upper, above = (
        part.numpy().astype(np.longdouble) for part in (band.lower, band.low, band.upper, band.high)
    )
    assert (lower * z + below <= value).all() and (upper * z + above >= value).all()
    assert (lower >= 0).all() and (upper >= 0).all()
    reach = np.maximum(lower, upper) * 7 + np.maximum(abs(below), abs(above))
    assert np.allclose(band.reach(torch.full_like(low, 7.0)).numpy(), reach.astype(float), 1e-12)
    for k in range(MANY):
        if not 1e-6 < float(high[k] - low[k]) < 50 or abs(float(low[k])) > 100:
            continue
        left, right = (np.linspace(float(end), float(low[k] + high[k]) / 2, 300) for end in (low[k], high[k]))
        middle = left[-1]
        x, y = np.meshgrid(left[:-1], right[:-1])
        share = (y - middle) / (y - x)
        chords = share * exact(kind, x) + (1 - share) * exact(kind, y)
        own = exact(kind, middle)
        best = min(own, chords.min()), max(own, chords.max())
        lines = lower[k] * middle + below[k], upper[k] * middle + above[k]
        assert abs(lines[0] - best[0]) < 1e-4 * (high[k] - low[k]) + 1e-10
        assert abs(lines[1] - best[1]) < 1e-4 * (high[k] - low[k]) + 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_slopes_lie_between_what_is_said(kind):
    low, high = intervals()
    curve, z = Curve(kind), points(low, high)
    value = exact(kind, z)
    slope = value * (1 - value) if kind == "sigmoid" else 1 - value * value
    for inside, (least, most) in ((value, curve.between(low, high)), (slope, curve.slopes(low, high))):
        least, most = least.numpy(), most.numpy()
        assert (least <= inside).all() and (inside <= most).all()
        assert (least > inside.min(0) - 1e-9).all() and (most < inside.max(0) + 1e-9).all()
    ends = {"sigmoid": (0, 1), "tanh": (-1, 1)}[kind]
    assert curve.between(-torch.ones(1) * math.inf, torch.ones(1) * math.inf) == ends
    assert (curve.slopes(low, high)[0] >= 0).all()
    assert curve.open(low, high).tolist() == (low < high).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_float32_errs_less_than_is_assumed(kind):
    z = 12 * (2 * rng.uniform(torch.arange(1), (400_000,))[0] - 1)
    error = abs(Curve(kind).apply(z).numpy().astype(np.longdouble) - exact(kind, z.numpy()))
    assert 2.0**-25 < error.max() < FLOAT32 == 2.0**-21
    fine = abs(Curve(kind).apply(z.double()).numpy().astype(np.longdouble) - exact(kind, z.numpy()))
    assert fine.max() < SLACK / 100


class Drawn(nn.Module):
    """Convolution or linear, with both functions, a ReLU, a sum of two ways and a max pooling."""

    def __init__(self, number, scale):
        super().__init__()
        with rng.scope("cpu", number, "curves"):
            self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.third, self.last = nn.Linear(12, 8), nn.Linear(8, 3)
        self.number = number
        for weight in self.parameters():
            weight.data.mul_(scale)

    def forward(self, x):
        one = self.first(x)
        one = (torch.tanh, torch.sigmoid, functional.relu)[self.number % 3](one)
        two = (nn.Sigmoid(), nn.Tanh())[self.number % 2](self.second(one))
        both = functional.max_pool2d(one + two, 2)
        return self.last(self.third(both.flatten(1)).tanh() if self.number % 5 else both.flatten(1)[:, :8])


@pytest.mark.parametrize("number", range(12))
def test_bounds_hold_at_every_node_and_rounding_is_counted(number):
    model = wrap(Drawn(number, (1.0, 3.0, 10.0)[number % 3]), shape=(1, 4, 4)).eval()
    graph = read(model)
    x = rng.uniform(rng.keys(number, "curves", torch.arange(3)), (1, 4, 4))
    label, threat = model(x).argmax(1), Threat(("linf", "l2", "l1")[number % 3], 0.1)
    many = x.repeat(700, 1, 1, 1)
    near = threat.sample(many, rng.keys(1, "near", torch.arange(len(many))))
    far = (many + threat.eps * threat.ascent(near - many)).clamp(0, 1)
    inside = threat.project(torch.cat([near, far, x]), torch.cat([many, many, x]))
    for strict in (True, False):
        bounder = Bounder(graph, CPU)
        bounder.strict = strict
        bounds = bounder.linear(Ball(x, threat))
        plain = bounder.interval(Ball(x, threat))
        values = [inside.double()]
        for node in bounder.fine.nodes[1:]:
            values.append(node.op.apply(*(values[i] for i in node.inputs)))
        for k, value in enumerate(values):
            value = value.view(-1, 3, *value.shape[1:])
            for found in (bounds, plain):
                assert (found.lower[k] - 1e-13 <= value.amin(0)).all()
                assert (found.upper[k] + 1e-13 >= value.amax(0)).all()
            assert (bounds.lower[k] >= plain.lower[k] - 1e-9).all()
        lead = values[-1].gather(1, label.repeat(len(inside) // 3)[:, None]) - values[-1]
        margins = bounder.margins(bounds, label)
        assert (margins <= lead.view(-1, 3, 3).amin(0) + 1e-13).all()
    errors = Float32(bounder.fine, bounds.lower, bounds.upper, bounder._parts)
    off = (model(inside).double() - values[-1]).abs().view(-1, 3, 3).amax(0)
    assert (off <= errors.errors[-1]).all() and (errors.errors[-1] < 0.02).all()
    for k, node in enumerate(bounder.fine.nodes):
        assert not isinstance(node.op, Curve) or (errors.own[k] == FLOAT32).all()


def test_certified_by_lines_where_intervals_do_not():
    model = wrap(Drawn(3, 3.0), shape=(1, 4, 4)).eval()
    x = rng.uniform(torch.arange(30), (1, 4, 4))
    label, counts = model(x).argmax(1), {}
    for method in ("interval", "linear", "auto", "complete"):
        result = advkit.certify(model, (x, label), Threat("linf", 0.06), method, subproblems=5)
        counts[method] = result.certified_correct
        attacked = advkit.perturb(model, x, label, Threat("linf", 0.06), "apgd")
        proved = torch.tensor([verdict.status == "certified" for verdict in result.verdicts])
        assert not (proved & attacked.success).any()
    assert counts["interval"] < counts["linear"] <= counts["auto"] <= counts["complete"]


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.Tanh()])
@pytest.mark.parametrize("call", ["module", "function", "method", "functional"])
def test_both_are_read_in_all_their_ways(layer, call):
    name = type(layer).__name__.lower()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = layer, nn.Linear(6, 3)

        def forward(self, x):
            x = 4 * x.flatten(1) - 2
            ways = {
                "module": self.layer,
                "function": getattr(torch, name),
                "method": lambda z: getattr(z, name)(),
            }
            return self.last(ways.get(call, getattr(functional, name))(x))

    model, x = wrap(Net(), shape=(1, 2, 3)).eval(), rng.uniform(torch.arange(3), (1, 2, 3))
    graph = read(model)
    assert torch.allclose(graph.forward(x), model(x), atol=1e-6)
    assert [node.op for node in graph.nodes if isinstance(node.op, Curve)] == [Curve(name)]
