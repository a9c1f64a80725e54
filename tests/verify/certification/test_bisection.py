"""Halving boxes decides what a fine grid shows, of networks with any activation."""

import itertools
import math

import pytest
import torch
from torch import nn

import advkit
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.data.arrays import from_arrays
from advkit.models.load import wrap
from advkit.verify.bounds.ball import Box
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.read import read
from advkit.verify.certification.bisection import Bisection, Parts
from advkit.verify.certification.branch import Branching
from advkit.verify.certification.complete import FEW, MORE, Completion
from advkit.verify.certification.search import Decision

THREAT = Threat("linf", 0.3)


def drawn(number, activation, inputs=2):
    """A network of two hidden layers; "pool" is one of max poolings too wide to be split into ReLUs."""
    with rng.scope("cpu", number, "halved"):
        sizes = [
            nn.Linear(*pair) for pair in ((inputs, 20), (20, 20), (4 if activation == "pool" else 20, 2))
        ]
    for layer in sizes:
        layer.weight.data.mul_(8.0 if activation is nn.Sigmoid else 3.0)
    pool = nn.Sequential(nn.Unflatten(1, (1, 1, 20)), nn.MaxPool2d((1, 17), 1), nn.Flatten())
    between = (nn.ReLU(), pool) if activation == "pool" else (activation(), activation())
    layers = (nn.Flatten(), sizes[0], between[0], sizes[1], between[1], sizes[2])
    return wrap(nn.Sequential(*layers), shape=(1, 1, inputs)).eval()


def searching(kind, model, **limits):
    wrong = lambda x, label: model(x).argmax(1) != label  # noqa: E731
    return kind(Bounder(read(model), torch.device("cpu")), THREAT, wrong, **limits)


@torch.no_grad()
def least(model, x):
    """The least lead of class 0 on a grid of the box."""
    axes = [torch.linspace(max(0.0, v - 0.3), min(1.0, v + 0.3), 301) for v in x.flatten().tolist()]
    logits = model(torch.cartesian_prod(*axes)[:, None, None])
    return float((logits[:, 0] - logits[:, 1]).min())


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.ReLU, "pool"])
def test_a_grid_gives_the_same_answer(activation):
    """With the last bias such that the least lead is just above or just below 0."""
    by_signs = []
    for number in range(3):
        model = drawn(number, activation)
        x, label = rng.uniform(rng.keys(number, "halved", torch.arange(1)), (1, 1, 2)), torch.tensor([0])
        for wanted in (0.02, -0.02):
            list(model.parameters())[-1].data[0] += wanted - least(model, x)
            found = [next(searching(Bisection, model, limit=n).decide(x, label)) for n in (1, 7, 5000)]
            for one, more in itertools.pairwise(found):
                assert one.example is not None or one.margin <= wanted + 1e-5
                assert one.margin <= more.margin + 1e-9 or one.margin > 0 or more.example is not None
            last = found[-1]
            assert (last.example is None) == (last.margin > 0) == (wanted > 0) and last.problems < 5000
            if last.example is not None:
                near = last.example[None]
                assert THREAT.contains(near, x).all() and model(near).argmax(1) == 1
            else:
                (one,) = searching(Branching, model, limit=300).decide(x, label)
                by_signs.append(one.margin > 0)
    assert all(by_signs) == (activation is nn.ReLU)


def test_bounds_of_a_box_hold_and_close_with_its_width():
    model, label, widths = drawn(1, nn.Tanh), torch.tensor([0]), (0.4, 0.1, 0.01)
    gaps, bounder = [], Bounder(read(model), torch.device("cpu"))
    for width in widths:
        low = torch.tensor([0.3, 0.6]).double().view(1, 1, 1, 2)
        bounds = bounder.linear(Box(low, low + width))
        axes = [torch.linspace(float(v), float(v) + width, 101).double() for v in low.flatten()]
        logits = bounder.fine.forward(torch.cartesian_prod(*axes)[:, None, None])
        lead = float((logits[:, 0] - logits[:, 1]).min())
        gaps.append(lead - float(bounder.margins(bounds, label)[0, 1]))
    assert all(gap >= 0 for gap in gaps) and gaps[-1] < 1e-3 < 1e-1 < gaps[0]


@pytest.mark.parametrize(("factor", "bias"), [(1.0, -0.01), (-1.0, 0.19)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_middle_of_a_part_and_its_worst_corner_are_tried(factor, bias, mirrored):
    """Of [0, 0.38], with the image at 0.08. The lead is a tent, below 0 around 0.19 or at 0 alone."""
    sign, first, last = 1 - 2 * mirrored, nn.Linear(1, 2), nn.Linear(2, 2)
    top = 0.19 if factor > 0 else 0.2
    first.weight.data = torch.tensor([[1.0], [-1.0]]) * sign
    first.bias.data = torch.tensor([-top, top]) + mirrored * torch.tensor([1.0, -1.0])
    last.weight.data, last.bias.data = torch.tensor([[factor, factor], [0, 0]]), torch.tensor([bias, 0.0])
    model = wrap(nn.Sequential(nn.Flatten(), first, nn.ReLU(), last), shape=(1, 1, 1)).eval()
    x, label = torch.full((1, 1, 1, 1), 0.92 if mirrored else 0.08), torch.tensor([0])
    (one,) = searching(Bisection, model, limit=1).decide(x, label)
    assert int(model(x).argmax()) == 0 and one.example is not None and one.problems == 1
    assert int(model(one.example[None]).argmax()) == 1


def test_a_batch_of_parts_fits_in_memory():
    search = searching(Bisection, drawn(0, nn.ReLU))
    values = sum(math.prod(node.shape) for node in search.bounder.fine.nodes)
    for parts in (1, 3, 20, 400):
        search.bounder.memory = 8 * 10 * values * 2 * parts
        assert search._many() == parts
        search.bounder.memory -= 1
        assert search._many() == max(1, parts - 1)


def test_what_no_number_halves_stays_as_far_from_a_proof_as_it_is():
    search = searching(Bisection, drawn(0, nn.ReLU), limit=1)
    list(search.decide(torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 0])))
    ends = torch.tensor([0.5, 0.5 + 2**-53, 0.5 + 2**-52], dtype=torch.float64)
    margins, sides = torch.tensor([[math.inf, -3.0], [math.inf, -4.0]]).double(), (ends[:2], ends[1:])
    count = search.count.clone()
    low, high = (side.view(2, 1, 1, 1).expand(2, 1, 1, 2) for side in sides)
    search._divide(Parts(torch.tensor([0, 1]), margins[:, 1], margins, low, high, torch.tensor([0, 1])))
    assert not len(search.open) and torch.equal(search.count, count)
    assert search.margin.tolist() == [-3.0, -4.0]


def test_images_share_batches_and_are_decided_one_by_one():
    model = drawn(2, nn.Tanh)
    x = rng.uniform(rng.keys(0, "halved", torch.arange(12)), (1, 1, 2))
    label = model(x).argmax(1)
    together = sorted(searching(Bisection, model).decide(x, label), key=lambda one: one.row)
    for row, one in enumerate(together):
        (alone,) = searching(Bisection, model).decide(x[row : row + 1], label[row : row + 1])
        assert (one.example is None) == (alone.example is None)
        assert one.margin == pytest.approx(alone.margin, abs=1e-9) or one.example is not None
    assert {one.example is None for one in together} == {True, False}


@pytest.mark.parametrize(
    ("activation", "inputs", "norm", "kinds"),
    [
        (nn.ReLU, FEW, "linf", [Branching, Bisection, Branching]),
        (nn.ReLU, FEW + 1, "linf", [Branching]),
        (nn.Tanh, FEW, "linf", [Bisection]),
        (nn.Tanh, MORE, "linf", [Bisection]),
        (nn.Tanh, MORE + 1, "linf", [Branching]),
        (nn.ReLU, 2, "l2", [Branching]),
    ],
)
def test_what_is_split(activation, inputs, norm, kinds):
    model = drawn(0, activation, inputs)
    made = Completion(model, read(model), Threat(norm, 0.1), timeout=60.0, subproblems=50)
    assert [type(search) for search in made.searches] == kinds
    assert sum(search.timeout for search in made.searches) == pytest.approx(60)
    assert sum(search.limit for search in made.searches) == pytest.approx(50)


def test_each_search_goes_on_with_what_those_before_it_leave_open(monkeypatch):
    """Problems of all count, and the best bound is said."""
    tried = []
    outcomes = [
        [(1, 2), (-3, 4), (-5, 6), (math.nan, 7), (-1, 1), (-2, 1)],
        [(-4, 10), (2, 20), (math.nan, 30), (-1, 10)],
        [(-2, 100), (3, 200)],
    ]

    def decide(self, x, label):
        tried.append((type(self), x.flatten(1)[:, 0].tolist()))
        self.decided, self.count, self.seconds = torch.ones(1, dtype=torch.bool), *torch.ones(2, 1)
        for row, (margin, problems) in enumerate(outcomes[len(tried) - 1]):
            yield Decision(row, margin, 0.5, x[row] if math.isnan(margin) else None, problems, 1.0)

    monkeypatch.setattr(Bisection, "decide", decide)
    monkeypatch.setattr(Branching, "decide", decide)
    model, x = drawn(0, nn.ReLU, 2), torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 1, 2) / 10
    part = from_arrays(x, torch.zeros(6, dtype=torch.long), name="toy", split="all")
    made = Completion(model, read(model), Threat("linf", 0.1), timeout=60.0, subproblems=50)
    found = {one.id: (one.status, one.margin, one.subproblems) for one, _, _ in made._searched(part)}
    rows = [[0, 1, 2, 3, 4, 5], [1, 2, 4, 5], [1, 5]]
    kinds = [Branching, Bisection, Branching]
    assert tried == [(kind, x[row, 0, 0, 0].tolist()) for kind, row in zip(kinds, rows, strict=True)]
    assert found == {
        0: ("certified", 1, 2),
        1: ("undecided", -2, 114),
        2: ("certified", 2, 26),
        3: ("broken", None, 7),
        4: ("broken", None, 31),
        5: ("certified", 3, 211),
    }


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, "pool"])
def test_with_many_inputs_what_stays_open_is_said(activation):
    """Nothing is decided wrongly, and a note says that time alone may not do it."""
    model = drawn(1, activation, MORE + 1)
    x = rng.uniform(rng.keys(3, "halved", torch.arange(6)), (1, 1, MORE + 1))
    label, threat = model(x).argmax(1), Threat("linf", 0.1)
    limits = {"timeout": 1e9, "subproblems": 20}
    result = advkit.certify(model, (x, label), threat, "complete", **limits)
    statuses = [verdict.status for verdict in result.verdicts]
    small = advkit.certify(model, (x, label), Threat("linf", 1e-4), "complete", **limits)
    assert small.certified_correct == 6 and "undecided" in statuses
    assert len(result.notes) == len(small.notes) + 1
    for row, verdict in enumerate(result.verdicts):
        near = x[row : row + 1].expand(2000, -1, -1, -1)
        points = threat.sample(near, rng.keys(0, "points", torch.arange(2000)))
        leads = (model(points) * torch.tensor([1.0, -1.0])).sum(1) * (1 - 2 * label[row])
        assert verdict.status == "broken" or leads.min() >= verdict.margin
