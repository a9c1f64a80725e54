"""Complete verification decides what is true, whatever the arithmetic does; its examples are confirmed."""

import itertools
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch
from scipy.optimize import linprog
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import advkit
from advkit.attacks.perturb import Perturbed
from advkit.core import rng
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.arrays import from_arrays
from advkit.evaluation.result import COMPLETE
from advkit.models.load import wrap
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.read import read
from advkit.verify.bounds.reduced import products
from advkit.verify.certification import branch, complete
from advkit.verify.certification import search as searches
from advkit.verify.certification.bisection import Bisection
from advkit.verify.certification.branch import Branching
from advkit.verify.certification.leaf import lowest
from advkit.verify.certification.result import CertifiedVerdict
from advkit.verify.certification.search import Decision
from advkit.verify.certification.settings import Certification

CPU = torch.device("cpu")


def drawn(number, widths, slope=0.0, factor=2.0):
    """(model, layers): a fully connected network, and its weights and biases."""
    with rng.scope("cpu", number, "complete"):
        sizes = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    for layer in sizes:
        layer.weight.data.mul_(factor)
    between = [layer for size in sizes for layer in (nn.LeakyReLU(slope) if slope else nn.ReLU(), size)][1:]
    plain = [[part.detach().double().numpy() for part in layer.parameters()] for layer in sizes]
    return wrap(nn.Sequential(nn.Flatten(), *between), shape=(1, 1, widths[0])).eval(), plain


def searching(model, threat, kind=Branching, **limits):
    return kind(Bounder(read(model), CPU), threat, lambda x, label: model(x).argmax(1) != label, **limits)


def rows(label, classes):
    eye = numpy.eye(classes)
    return numpy.array([eye[label] - eye[other] for other in range(classes) if other != label])


def fits(decision, truth, near=1e-6):
    """Whether a decision says what an exact minimum does, unless this is within rounding of 0."""
    if decision.example is None and decision.margin > truth + near:
        return False
    return abs(truth) < near or (decision.example is not None) == (truth < 0) == (decision.margin <= 0)


@pytest.mark.parametrize("kind", [Branching, Bisection])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_every_pattern_of_signs_gives_the_same_answer(kind, slope, exact):
    """The bound of an image that ran out of problems is one, and no worse with more problems."""
    threat, seen = Threat("linf", 0.3), set()
    for number in range(5):
        model, layers = drawn(number, (3, 3, 2, 3), slope, 3.0)
        x = rng.uniform(rng.keys(number, "complete", torch.arange(1)), (1, 1, 3))
        label = model(x).argmax(1)
        truth = exact.smallest(layers, Ball(x, threat), rows(int(label), 3), slope).min()
        decisions = [
            next(searching(model, threat, kind, limit=limit).decide(x, label)) for limit in (1, 7, math.inf)
        ]
        assert fits(decisions[-1], truth)
        for one, more in itertools.pairwise(decisions):
            assert one.margin <= truth + 1e-9 or one.example is not None
            assert one.margin <= more.margin + 1e-9 or one.margin > 0 or more.example is not None
        seen.add((truth > 0).item())
    assert len(seen) == 2


def test_poolings_are_split_too(exact):
    """The larger of a and b is relu(a - b) + relu(b) - relu(-b)."""
    threat, seen = Threat("linf", 0.3), set()
    for number in range(6):
        _, layers = drawn(number, (3, 4, 3), factor=3.0)
        (weight, bias), (second, last) = layers[0], drawn(number + 50, (2, 3))[1][0]
        first, end = nn.Linear(3, 4), nn.Linear(2, 3)
        for layer, values in ((first, (weight, bias)), (end, (3 * second, last))):
            layer.weight.data, layer.bias.data = (torch.from_numpy(value).float() for value in values)
        pool = (nn.Unflatten(1, (1, 1, 4)), nn.MaxPool2d((1, 2)))
        model = wrap(nn.Sequential(nn.Flatten(), first, *pool, nn.Flatten(), end), shape=(1, 1, 3)).eval()
        compared = numpy.array([[1, -1], [0, 1], [0, -1]])
        both, joined = numpy.kron(numpy.eye(2), compared), numpy.kron(numpy.eye(2), [1.0, 1, -1])
        plain = [(both @ weight, both @ bias), (3 * second @ joined, last)]
        x = rng.uniform(rng.keys(number, "pooled", torch.arange(1)), (1, 1, 3))
        label = model(x).argmax(1)
        truth = exact.smallest(plain, Ball(x, threat), rows(int(label), 3), 0.0).min()
        assert fits(next(searching(model, threat).decide(x, label)), truth)
        seen.add((truth > 0).item())
    assert len(seen) == 2


@pytest.mark.parametrize("kind", [Branching, Bisection])
@pytest.mark.parametrize("number", range(4))
def test_mixed_integer_programming_gives_the_same_answer(number, kind, exact):
    """With the last bias such that the least margin is just above or just below 0."""
    model, layers = drawn(number, (5, 20, 16, 2), factor=3.0)
    x = 0.2 + 0.6 * rng.uniform(rng.keys(number, "complete", torch.arange(1)), (1, 1, 5))
    label, threat = torch.tensor([0]), Threat("linf", 0.15)
    ends = [side.flatten().numpy() for side in (Ball(x, threat).lower, Ball(x, threat).upper)]
    truth, undecided = exact.programmed(layers, *ends, numpy.array([1.0, -1]))
    assert 20 <= undecided <= 40
    for margin in (0.002, -0.004):
        list(model.parameters())[-1].data[0] += margin - truth
        truth = margin
        (decision,) = searching(model, threat, kind).decide(x, label)
        assert decision.problems > 0 and fits(decision, margin)
        if decision.example is not None:
            near = decision.example[None]
            assert threat.contains(near, x).all() and (model(near).argmax(1) != label).all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_balls(norm):
    """Nothing is decided wrongly, and most is decided."""
    seen = []
    for number in range(4):
        model, _ = drawn(number, (6, 10, 8, 3))
        x = 0.2 + 0.6 * rng.uniform(rng.keys(number, "complete", torch.arange(8)), (1, 1, 6))
        label, threat = model(x).argmax(1), Threat(norm, 0.15)
        for one in searching(model, threat, limit=60).decide(x, label):
            near, y = x[one.row], label[one.row]
            if one.example is not None:
                assert threat.contains(one.example[None], near[None]).all()
                assert model(one.example[None]).argmax(1) != y
            else:
                points = threat.sample(near.expand(2000, 1, 1, 6), rng.keys(0, "points", torch.arange(2000)))
                logits = model(points).double()
                lead = logits[:, y] - logits.scatter(1, y.expand(2000, 1), -torch.inf).amax(1)
                assert lead.min() >= one.margin
            seen.append("broken" if one.example is not None else "proved" if one.margin > 0 else "open")
    assert seen.count("open") < 6 and {"broken", "proved"} <= set(seen)


@pytest.mark.parametrize("factor", [1.0, 1e6, 1e30, 1e38])
@pytest.mark.parametrize("lead", [-1e-9, 1e-9])
@pytest.mark.parametrize("kind", [Branching, Bisection])
def test_arithmetic_does_not_prove_what_is_false(kind, factor, lead):
    """Equal neurons cancel, and what leads is less than the rounding of either; or all overflows."""
    large, last = nn.Linear(2, 4), nn.Linear(4, 2)
    large.weight.data = torch.tensor([[1.0, -1], [1, -1], [-1, 1], [-1, 1]]) * factor
    large.bias.data = torch.zeros(4)
    last.weight.data = torch.tensor([[3.0, -3, 2, -2], [0, 0, 0, 0]])
    last.bias.data = torch.tensor([lead * factor, 0.0])
    model = wrap(nn.Sequential(nn.Flatten(), large, nn.ReLU(), last), shape=(1, 1, 2)).eval()
    x = torch.full((1, 1, 1, 2), 0.5)
    for threat in (Threat("linf", 0.1), Threat("l2", 0.1))[: 1 + (factor == 1e6 and kind is Branching)]:
        (one,) = searching(model, threat, kind, limit=30).decide(x, torch.tensor([0]))
        assert not one.margin > 0
        if (
            lead > 0 and one.example is not None
        ):  # a processor's order of sums may break what is robust exactly
            assert int(model(one.example[None]).argmax()) == 1


def test_what_overflows_within_the_ball_is_not_certified():
    """In exact arithmetic class 1 leads by far; in float32 both logits become infinite."""
    first, last = nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False)
    first.weight.data, last.weight.data = torch.full((1, 2), 1e30), torch.tensor([[1e9], [2e9]])
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).eval()
    x, label = torch.full((1, 1, 1, 2), 0.002), torch.tensor([1])
    assert model(x).argmax(1) == 1 and model(x + 0.2).isinf().all()
    for leading, eps, certified in ((1e30, 1e-6, 0), (1e30, 0.2, 0), (1e21, 1e-6, 1)):
        first.weight.data = torch.full((1, 2), leading)
        found = advkit.certify(model, (x, label), Threat("linf", eps), "complete", subproblems=20)
        assert found.certified_correct == certified


def test_drawn_networks_of_any_scale_are_never_certified_wrongly(networks):
    decided = 0
    for number in range(12):
        model, x = networks.network(number, networks.conv, networks.relu, scales=True)
        threat, label = Threat(("linf", "l2", "l1")[number % 3], 0.03), model(x).argmax(1)
        points = torch.cat([threat.sample(x, rng.keys(k, "points", torch.arange(2))) for k in range(50)])
        broken = (model(points).argmax(1).view(50, 2) != label).any(0)
        for one in searching(model, threat, limit=16).decide(x, label):
            assert one.example is not None or one.margin <= 0 or not broken[one.row]
            decided += one.example is not None or one.margin > 0
    assert decided > 12


@pytest.mark.parametrize("widths", [(6, 3), (6, 4, 3)])
def test_networks_without_an_undecided_sign(widths):
    """The bounds are exact, and the least margin is found in a corner."""
    model, _ = drawn(1, widths)
    x = 0.2 + 0.6 * rng.uniform(rng.keys(1, "complete", torch.arange(1)), (1, 1, 6))
    if len(widths) == 3:
        list(model.parameters())[1].data += 100.0
    list(model.parameters())[-1].data += torch.tensor([0.05, 0, 0]) - model(x)[0].detach()
    seen = set()
    for norm, eps in itertools.product(("linf", "l2"), (0.001, 0.004, 0.02, 0.5)):
        (one,) = searching(model, Threat(norm, eps)).decide(x, torch.tensor([0]))
        assert (one.example is None) == (one.margin > 0) == (one.problems == 0)
        seen.add((norm, one.margin > 0))
    assert len(seen) == 4


def test_linear_programmes():
    """Least of x - y on a square where x + y >= 0.5 and x >= y, and where this is impossible."""
    function, low, high = torch.tensor([1.0, -1]).double(), torch.zeros(2).double(), torch.ones(2).double()
    sides = torch.tensor([[1.0, 1], [4, -4]]).double()
    point, multipliers = lowest(function, sides, torch.tensor([-0.5, 0]).double(), low, high)[0]
    assert float(function @ point) == pytest.approx(0, abs=1e-9)
    assert torch.allclose(multipliers, torch.tensor([0, 0.25]).double())
    for _, multipliers in lowest(function, sides, torch.tensor([-2.5, 0]).double(), low, high):
        rest = function - multipliers @ sides
        assert rest.clamp(max=0).sum() + 2.5 * multipliers[0] > 1  # where 1 would be the most


@pytest.mark.parametrize("number", range(24))
def test_linear_programmes_of_any_size_and_place(number):
    """The point, and what the multipliers prove, are those of a programme with hard constraints."""
    dice = numpy.random.default_rng(number)
    wide, steep = 10.0 ** dice.integers(-4, 5, 2)
    middle = 0 if number % 3 else 3 * wide * dice.normal(size=4)
    low, high = middle - wide * dice.uniform(0, 1, 4), middle + wide * dice.uniform(0, 1, 4)
    low = low if number % 3 < 2 else -high
    function, sides = (
        steep * dice.normal(size=4),
        dice.normal(size=(3, 4)) * 10.0 ** dice.integers(-4, 5, (3, 1)),
    )
    within = low + (high - low) * dice.uniform(0, 1, 4)
    ends = -sides @ within  # so that there is a point
    point, multipliers = lowest(*map(torch.from_numpy, (function, sides, ends, low, high)))[-1]
    truth = linprog(function / steep, -sides, ends, bounds=numpy.stack([low, high], 1)).fun * steep
    rest = function - multipliers.numpy() @ sides
    proved = numpy.minimum(rest * low, rest * high).sum() - multipliers.numpy() @ ends
    near = 1e-6 * (abs(function) @ (high - low))
    assert function @ point.numpy() == pytest.approx(truth, abs=near) and proved == pytest.approx(
        truth, abs=near
    )


@pytest.fixture
def begun(monkeypatch):
    """A search with open problems of several images, drawn signs of some inputs and multipliers for them;
    and for each problem points of the ball that have these signs, and their margins."""
    model, _ = drawn(7, (6, 12, 10, 3), 0.1, 2.0)
    x = 0.2 + 0.6 * rng.uniform(rng.keys(7, "begun", torch.arange(6)), (1, 1, 6))
    search, label = searching(model, Threat("linf", 0.3)), model(x).argmax(1)
    with torch.no_grad():
        monkeypatch.setattr(search, "_settled", lambda: iter([None]))
        next(search.decide(x, label))
        problems = search.open[torch.arange(len(search.open)).repeat(3)]
        key, width = rng.keys(8, "drawn", torch.arange(len(problems))), problems.signs.shape[1]
        image, graph = search.image[problems.root], search.bounder.fine
        points = search.threat.sample(x.repeat(500, 1, 1, 1), rng.keys(9, "points", torch.arange(3000)))
        values = [points.double()]
        for node in graph.nodes[1:]:
            values.append(node.op.apply(*(values[i] for i in node.inputs)))
        inputs = torch.cat([values[graph.nodes[k].inputs[0]].flatten(1) for k in search.relus], 1)
        own = inputs.view(500, 6, width)[rng.integers(key, (1,), 500)[:, 0], image].sign()
        signs = (own * (rng.uniform(key + 1, (width,)) < 0.2)).to(torch.int8)
        weights = (rng.uniform(key + 2, (width,)) * (signs != 0)).half()
        slopes = (0.1 + 0.9 * rng.uniform(key + 3, (width,))).half()
        problems = replace(problems, signs=signs, weights=weights, slopes=slopes)
        margins = values[-1].gather(1, label.repeat(500)[:, None]) - values[-1]
        margins = margins.view(500, 6, 3)[:, image].gather(
            2, search.other[problems.root].expand(500, -1)[..., None]
        )
        fitting = (inputs.view(500, 6, width)[:, image] * signs >= 0).all(2)
        monkeypatch.setattr(branch, "CANDIDATES", 4)
        yield search, problems, margins[..., 0].masked_fill(~fitting, torch.inf).amin(0)


def valued(search, problems, form=None):
    linear, total = search._carried(problems, form or search.fine)
    return (total + search.ball.least(linear, search.image[problems.root])).double()


def test_a_bound_holds_at_all_points_with_its_signs(begun):
    """Whatever the slopes and multipliers. Ascent raises it."""
    search, problems, least = begun
    assert len(problems) > 20 and (least < torch.inf).all()
    for found in (problems, search._searched(problems, 8)):
        assert (valued(search, found) <= least + 1e-9).all()
        coarse = search._value(found).double()
        assert torch.allclose(coarse, valued(search, found), atol=1e-3)
    assert (search._sure(found)[0] >= search._sure(problems)[0] - 1e-3).all()
    assert (search._sure(found)[0] > search._sure(problems)[0]).double().mean() > 0.9
    place = (problems.signs == 0).int().argmax(1)
    for sign in (1, -1):
        half = search._signed(problems, place, sign)
        assert (half.signs.gather(1, place[:, None]) == sign).all()
        assert ((half.signs != problems.signs).sum(1) == 1).all()


def test_a_reduced_network_is_the_network_on_the_ball(begun, monkeypatch):
    """At all points, and so are its bounds and what a search in it finds, where open inputs have signs."""
    search, problems, _ = begun
    unsure = search.unsure[search.image[problems.root]]
    problems = replace(problems, signs=problems.signs * unsure, weights=problems.weights * unsure)
    whole = search._searched(problems, 8)
    monkeypatch.setattr(branch, "ALONE", 1)
    monkeypatch.setattr(branch, "products", lambda graph: math.inf)
    image = search.image[problems.root]
    for form, rows in search._forms(problems):
        (k,) = set(image[rows].tolist())
        points = search.threat.sample(search.x[[k]].repeat(500, 1, 1, 1), rng.keys(9, "x", torch.arange(500)))
        wanted = search.bounder.coarse.forward(points)
        assert torch.allclose(form.graph.forward(points), wanted, atol=1e-4)
        assert torch.equal(form.place, search.unsure[k].nonzero()[:, 0])
        same = valued(search, problems[rows])
        assert torch.allclose(valued(search, problems[rows], form), same, atol=1e-3)
    assert torch.allclose(search._value(problems), valued(search, problems), atol=1e-3)
    gained = (search._sure(search._searched(problems, 8))[0] - search._sure(whole)[0]).abs()
    assert gained.quantile(0.9) < 0.05 * search._sure(whole)[0].abs().mean()


def test_products_are_those_of_the_layers():
    layers = [
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ]
    model = wrap(nn.Sequential(*layers), shape=(1, 8, 8)).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 8, 8))
    assert products(read(model)) == counter.get_total_flops() / 2 > 0


def test_few_problems_and_few_known_signs_stay_in_the_whole_network(begun, monkeypatch):
    search, problems, _ = begun
    count = torch.bincount(search.image[problems.root]).max().item()
    for most, alone, whole in ((0, 1, True), (math.inf, 1, False), (math.inf, count + 1, True)):
        search.reduced.clear()
        monkeypatch.setattr(branch, "products", lambda graph, most=most: most)
        monkeypatch.setattr(branch, "ALONE", alone)
        forms = list(search._forms(problems))
        assert all((form is search.coarse) == whole for form, _ in forms)
        assert torch.equal(torch.cat([rows for _, rows in forms]).sort().values, torch.arange(len(problems)))


def test_rounding_counts_every_term(begun, monkeypatch):
    """Its share of the reach of both logits, and of each input that a multiplier adds."""
    search, problems, _ = begun
    image, other = search.image[problems.root], search.other[problems.root]
    sure = []
    for off in (0.0, 1.0):
        monkeypatch.setattr(search.bounder, "off_at", lambda place, off=off: off)
        sure.append(search._sure(problems)[0] + search.deducted[problems.root])
    assert torch.allclose(sure[0], valued(search, problems))
    reach, nodes = search.bounds.reach, search.bounder.fine.nodes
    paths = reach[-1][image, search.label[image]] + reach[-1][image, other]
    inner = torch.cat([reach[nodes[k].inputs[0]].flatten(1) for k in search.relus], 1)[image]
    added = problems.weights.double() * search.scale[problems.root].double() * inner
    assert added.sum(1).min() > 0 and torch.allclose(sure[0] - sure[1], paths + added.sum(1))


def test_open_problems_are_taken_in_turn(begun, monkeypatch):
    """Of each image the lowest bound, then the next; above a limit of memory those nearest to a proof."""
    search, problems, _ = begun
    bound = rng.permutation(0, "bound", len(problems)).double()
    search.open = replace(problems, bound=bound)
    image = search.image[problems.root].tolist()
    order = sorted(range(len(image)), key=lambda k: bound[k])
    turns = sorted(order, key=lambda k: ([j for j in order if image[j] == image[k]].index(k), image[k]))
    monkeypatch.setattr(search.bounder, "fitting", lambda dtype, size: 14)
    for room, wanted in ((0, turns), (1, order[::-1])):
        monkeypatch.setattr(searches, "HELD_OPEN", search.open.bytes - room)
        assert search._chosen().tolist() == wanted[:7]


def test_what_costs_most_is_tried_for_a_split(begun):
    """Of the inputs without a sign; where none seems to cost anything, others."""
    search, problems, _ = begun
    image, dice = search.image[problems.root], torch.Generator().manual_seed(0)
    low, high = search.low[image], search.high[image]
    free = (low < 0) & (high > 0) & (problems.signs == 0)
    for share in (1.0, 0.2, 0.0):
        a = torch.randn(low.shape, generator=dice, dtype=torch.float64)
        a = a * (torch.rand(low.shape, generator=dice) < share)
        cost = torch.where(a < 0, -a, a / 2) * -low * high / (high - low) * free
        top = cost.topk(4, 1)
        kept = search.fine.shaped(a)
        found = search._candidates(problems, kept)
        some = top.values[:, 0] > 0
        assert torch.equal(found[some], torch.where(top.values > 0, top.indices, -1)[some])
        assert free[~some].gather(1, found[~some]).all()
        one = problems[: len(search.open)]  # of each root
        kept = {k: each[: len(one)] for k, each in kept.items()}
        search._candidates(replace(one, signs=0 * one.signs), kept)
        scale = (a.abs() + a.abs().mean(1, keepdim=True))[: len(one)]
        assert torch.allclose(search.scale[one.root], scale.float())


def test_the_split_is_the_one_whose_worse_half_is_best(begun, monkeypatch):
    """Of halves that are proved all are as good."""
    search, problems, _ = begun
    problems = problems[: len(search.open)]  # one of each root
    root, width, dice = problems.root, problems.signs.shape[1], torch.Generator().manual_seed(0)
    base = torch.zeros_like(search.scale).index_copy(0, root, problems.signs.float())
    search.deducted = torch.rand(len(search.scale), generator=dice, dtype=torch.float64)

    def value(part):
        new = part.signs - base[part.root]
        assert (new.abs().sum(1) == 1).all()
        row, place = new.nonzero(as_tuple=True)
        return values[(new[row, place] < 0).long(), part.root, place] + search.deducted[part.root]

    monkeypatch.setattr(search, "_value", value)
    for _ in range(8):
        values = torch.randn((2, *search.scale.shape), generator=dice, dtype=torch.float64)
        found = (torch.rand(len(root), width, generator=dice) * (problems.signs == 0)).topk(4, 1).indices
        found[:, 1:][torch.rand(len(root), 3, generator=dice) < 0.2] = -1
        halves = search._halves(replace(problems, candidates=found))
        worse, better = values[:, root].clamp(max=0).sort(0).values
        score = (worse + 0.1 * better).gather(1, found.clamp(min=0)).masked_fill(found < 0, -torch.inf)
        best = found.gather(1, score.argmax(1, keepdim=True))
        chosen = torch.zeros_like(problems.signs).scatter_(1, best, 1)
        assert torch.equal(halves.signs, torch.cat([problems.signs + chosen, problems.signs - chosen]))
        assert torch.equal(halves.root, root.repeat(2))


def bumpy():
    """Every value has maxima at both ends of [0, 1], the upper twice as high; nearly all have to be there."""
    both, last = nn.Linear(36, 72), nn.Linear(72, 2)
    both.weight.data = torch.cat([2 * torch.eye(36), -torch.eye(36)])
    both.bias.data = torch.tensor([-1.0, 0.5]).repeat_interleave(36)
    last.weight.data, last.bias.data = torch.tensor([[0.0], [1 / 36]]).expand(2, 72), torch.tensor([0, -0.9])
    return wrap(nn.Sequential(nn.Flatten(), both, nn.ReLU(), last), shape=(1, 6, 6)).eval()


def test_what_branch_and_bound_leaves_open_is_attacked_again(monkeypatch):
    def decide(self, x, label):
        self.decided = torch.ones(len(x), dtype=torch.bool)
        self.count, self.seconds = torch.ones(len(x)), torch.ones(len(x))
        for row in range(len(x)):
            yield Decision(row, -1.0, 0.0, None, 9, 1.0)

    monkeypatch.setattr(Branching, "decide", decide)
    pair, threat = (torch.full((20, 1, 6, 6), 0.5), torch.zeros(20, dtype=torch.long)), Threat("linf", 0.5)
    for subproblems, timeout, least, most in ((90, 600.0, 3, 20), (9, 600.0, 0, 0), (90, 1e-9, 0, 2)):
        result = advkit.certify(bumpy(), pair, threat, "complete", subproblems=subproblems, timeout=timeout)
        assert least <= result.broken_correct <= most and result.undecided == 20 - result.broken_correct
        for verdict in result.verdicts:
            open_ = verdict.status == "undecided"
            assert (verdict.margin, verdict.subproblems) == ((-1.0, 9) if open_ else (None, None))


@pytest.mark.parametrize(
    ("timeout", "subproblems", "count", "ascents"),
    [
        (60, None, 10, [16, 180]),
        (60, None, 1, [16]),
        (60, 120, 10, [16, 120]),
        (60, 16, 10, [16]),
        (60, 9, 10, [9]),
        (math.inf, None, 10, [16, 1600]),
        (5, None, 10, [16]),
        (60, None, 0, []),
    ],
)
def test_the_last_attack_takes_at_most_the_time_of_branch_and_bound(
    monkeypatch, timeout, subproblems, count, ascents
):
    """Where an ascent of them takes 3 seconds, and each attack breaks one."""
    asked, clock = [], iter(range(0, 10**6))

    def attack(model, part, y, threat, name, *, parameters, progress):
        asked.append((part.ids.tolist(), name, parameters))
        for _ in range(3 * parameters["ascents"] - 1):
            next(clock)
        made = torch.zeros(len(part), 1, 6, 6).as_subclass(Perturbed)
        made.success = torch.arange(len(part)) == 0
        return made

    monkeypatch.setattr(complete, "perturb", attack)
    monkeypatch.setattr(complete.time, "perf_counter", lambda: next(clock))
    model, x, some = bumpy(), torch.full((40, 1, 6, 6), 0.5), list(range(7, 7 + count))
    limits = {"timeout": timeout, "subproblems": subproblems}
    search = complete.Completion(model, read(model), Threat("linf", 0.5), **limits)
    part = from_arrays(x, torch.zeros(40, dtype=torch.long), name="toy", split="all")
    opened = {k: (CertifiedVerdict(id=k, label=0, status="undecided"), None, {}) for k in some}
    found = [one[0] for one in search._attacked(part, opened)]
    assert asked == [(some[k:], "memetic", {"ascents": many}) for k, many in enumerate(ascents)]
    broken = [verdict.id for verdict in found if verdict.status == "broken"]
    assert broken == some[: len(ascents)] and [verdict.id for verdict in found] == some


N, THREAT = 24, Threat("linf", 0.12)


@pytest.fixture(scope="module")
def judged():
    """(model, data): some images are proved, some are broken, and some need splits."""
    model, _ = drawn(3, (16, 20, 12, 3))
    x = rng.uniform(torch.arange(N), (1, 1, 16))
    label = model(x).argmax(1)
    label[0] = (label[0] + 1) % 3
    return model, (x, label)


def test_results_tell_what_is_exact(judged):
    model, pair = judged
    result = advkit.certify(model, pair, THREAT, "complete", timeout=600)
    auto = advkit.certify(model, pair, THREAT)
    status = [verdict.status for verdict in result.verdicts]
    assert status[0] == "misclassified" and result.undecided == 0 < status.count("broken")
    assert result.broken_correct == status.count("broken")
    assert result.certified_correct == status.count("certified") > auto.certified_correct
    assert "exactly" in result.summary() and "exactly" not in auto.summary()
    assert [one.name for one in result.methods] == ["interval", "linear", "optimised", "complete"]
    more = result.methods[-1]
    assert more.proved == result.certified_correct - auto.certified_correct and more.tried == auto.undecided
    for verdict, plain in zip(result.verdicts, auto.verdicts, strict=True):
        assert plain.status != "certified" or verdict == plain
        assert (verdict.status == "certified") == (verdict.margin is not None)
        assert (verdict.method == "complete") == (verdict.status == "certified" != plain.status)
    assert max(verdict.subproblems or 0 for verdict in result.verdicts) > 2
    few = advkit.certify(model, pair, THREAT, "complete", subproblems=1)
    assert few.undecided > 0 and "exactly" not in few.summary()
    for verdict, whole in zip(few.verdicts, result.verdicts, strict=True):
        assert verdict.status in ("undecided", whole.status)
        assert verdict.status != "undecided" or (verdict.margin <= 0 and verdict.subproblems >= 1)
    soon = advkit.certify(model, pair, THREAT, "complete", timeout=1e-9)
    assert {v.status for v in soon.verdicts} >= {"undecided", "certified"}


def test_a_stopped_run_goes_on(judged, stopping, tmp_path):
    model, pair = judged

    def run(folder, **how):
        with RunFolder.open("certify", "toy", Certification(model="m"), tmp_path / folder) as opened:
            return advkit.certify(
                model, pair, THREAT, "complete", subproblems=40, timeout=600, batch_size=8, run=opened, **how
            )

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", progress=stopping)
    assert len((tmp_path / "killed" / "certified.jsonl").read_text().splitlines()) < N
    again = run("killed")
    assert [v.status for v in again.verdicts] == [v.status for v in whole.verdicts]
    assert run("whole").verdicts == whole.verdicts


def test_an_evaluation_counts_its_examples(judged):
    model, (x, label) = judged
    alone = advkit.certify(model, (x, label), THREAT, "complete")
    both = advkit.evaluate(model, (x, label), THREAT, "fgsm", certify="complete", keep=True)
    assert both.robust_correct == both.certified_correct == alone.certified_correct
    assert "exactly" in both.summary() and both.stages[0].attacked == 0
    for verdict, own in zip(both.verdicts, alone.verdicts, strict=True):
        assert verdict.status == own.status
        assert (verdict.attack == COMPLETE) == (verdict.status == "broken")
        assert verdict.status != "broken" or 0 < verdict.distance <= THREAT.eps + THREAT.slack
    broken = torch.tensor([verdict.status == "broken" for verdict in both.verdicts])
    assert (model(both.adversarial[broken]).argmax(1) != label[broken]).all()
    assert torch.equal(both.adversarial[~broken], x[~broken])
    coarse = advkit.evaluate(
        model, ((x * 255).byte(), label), THREAT, "fgsm", certify="complete", eight_bit=True
    )
    assert COMPLETE not in {verdict.attack for verdict in coarse.verdicts}


@pytest.mark.usefixtures("here")
def test_both_commands_take_it(typed, capsys):
    words = ["--model=clf.pt", "--data=digits", "--n=40", "--norm=linf", "--eps=0.02"]
    assert (
        typed("certify", *words, "--method=complete", "--timeout=60", "--subproblems=50", "--json=a.json")
        == 0
    )
    for certify in (["--certify", "complete"], ["--certify"], ["--no-certify"]):
        assert typed("attack", *words, "--attack=fgsm", *certify, "--json=b.json") == 0
        result = json.loads(Path("b.json").read_text(encoding="utf-8"))
        assert (result["certified_correct"] is None) == (certify == ["--no-certify"])
        if "complete" in certify[-1]:
            alone = json.loads(Path("a.json").read_text(encoding="utf-8"))
            assert result["certified_correct"] == alone["certified_correct"] == result["robust_correct"]
    assert typed("attack", *words, "--certify=all") == 2
    assert typed("certify", *words, "--method=complete", "--timeout=0") == 2
    assert "timeout" in capsys.readouterr().err


def test_classes_that_only_a_target_reaches_are_found():
    threat, image = Threat("linf", 0.15), advkit.load_data("digits").take(torch.tensor([87]))
    model = advkit.load_model("advkit:digits-robust")
    assert not advkit.perturb(
        model, image, None, threat, parameters={"steps": 100}, progress=False
    ).success.any()
    result = advkit.certify(model, image, threat, "complete", subproblems=1)
    assert result.verdicts[0].status == "broken"


@pytest.mark.parametrize("opened", [True, False])
def test_an_evaluation_says_what_no_time_decides(opened, monkeypatch):
    """Of images that are open alone: without any the answer is exact."""
    from advkit.evaluation import evaluate

    with rng.scope("cpu", 0, "smooth"):
        layers = [nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 10)]
    for layer in layers[:4:2]:
        layer.weight.data.mul_(4)
    model = nn.Sequential(nn.Flatten(), *layers)
    x = rng.uniform(rng.keys(0, "smooth", torch.arange(4)), (1, 8, 8))
    with torch.no_grad():
        pair, threat = (x, model(x).argmax(1)), Threat("linf", 0.01 if opened else 0.002)
    monkeypatch.setattr(evaluate, "certified", partial(evaluate.certified, subproblems=1))
    both = advkit.evaluate(model, pair, threat, "noise", certify="complete")
    alone = advkit.certify(model, pair, threat, "complete", subproblems=1)
    notes = {*alone.notes} - {*advkit.certify(model, pair, threat).notes}
    assert (both.certified_correct < both.robust_correct) == (alone.undecided > 0) == opened == bool(notes)
    assert notes <= {*both.notes} and (opened or {*both.notes} <= {*alone.notes})


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_no_image_of_a_linear_network_stays_open(norm):
    """Pixels at 0 and 1 included, where the ball alone says too little."""
    with rng.scope("cpu", 5, "linear"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    x = (2 * rng.uniform(rng.keys(1, "linear", torch.arange(40)), (1, 8, 8)) - 0.5).clamp(0, 1)
    with torch.no_grad():
        logits = model(x)
    gap = logits.topk(2).values[:, 0] - logits.topk(2).values[:, 1]
    eps = float(gap.median()) * (1.5 if norm == "l2" else 6)
    result = advkit.certify(model, (x, logits.argmax(1)), Threat(norm, eps), "complete", subproblems=1)
    assert result.undecided == 0 and 5 < result.certified_correct < 35
