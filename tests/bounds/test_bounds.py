"""Bounds are never wrong, tight where they can be, and the same whatever the batch."""

import itertools

import pytest
import torch
from torch import nn

from advkit import rng
from advkit.bounds.ball import Ball
from advkit.bounds.interval import interval_bounds, margins_at_last
from advkit.bounds.linear import Bounder
from advkit.bounds.optimised import optimised_rows
from advkit.bounds.read import check, read
from advkit.bounds.relaxation import MaxPool, Relu
from advkit.bounds.rounding import float32_error
from advkit.errors import ConfigError
from advkit.models.load import wrap
from advkit.threat import Threat

CPU = torch.device("cpu")
THREATS = [Threat("linf", 0.05), Threat("l2", 0.3), Threat("l1", 0.8)]


def margins(model, x, label, threat, method, **options):
    """(N, K) lower bounds of the true logit minus each."""
    bounder = Bounder(read(model), CPU, **options)
    with torch.no_grad():
        if method == "interval":
            bounds = bounder.interval(Ball(x, threat))
            return margins_at_last(bounder.fine, bounds.lower, bounds.upper, label)
        bounds = bounder.linear(Ball(x, threat))
        found = bounder.margins(bounds, label)
        if method == "optimised":
            index, other = (found < torch.inf).nonzero(as_tuple=True)
            needed = torch.full((len(index),), torch.inf, dtype=torch.float64)
            rows = optimised_rows(bounder, bounds, index, label[index], other, needed)
            found = rows.view_as(found).masked_fill(nn.functional.one_hot(label, 3).bool(), 0)
        return found


def smallest(model, x, label, threat):
    """(N, K) the smallest margin that random points and gradient steps find."""
    best = torch.full((len(x), 3), torch.inf, dtype=torch.float64)
    for start, other in itertools.product(range(2), range(3)):
        point = threat.sample(x, rng.keys(start, "bounds", torch.arange(len(x))))
        for step in range(10):
            point.requires_grad_(True)
            logits = model(point)
            gap = logits.gather(1, label[:, None]) - logits
            best = torch.minimum(best, gap.detach().double())
            (slant,) = torch.autograd.grad(gap[:, other].sum(), point)
            point = (point - threat.eps * 0.7**step * threat.ascent(slant)).detach()
            point = threat.project(point, x)
    return best


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_nothing_is_below_the_bounds_and_better_bounds_are_higher(network, images, threat):
    label = network(images).argmax(1)
    found = smallest(network, images, label, threat)
    bound = {m: margins(network, images, label, threat, m) for m in ("interval", "linear", "optimised")}
    for method in bound:
        assert (bound[method] <= found + 1e-5).all(), method
    assert (bound["linear"] <= bound["optimised"] + 1e-12).all()
    assert bound["interval"].mean() <= bound["linear"].mean() + 1e-6
    assert bound["linear"].isfinite().all()


@pytest.mark.parametrize("name", ["interval", "linear"])
def test_linear_networks_are_bounded_exactly(name, images):
    with rng.scope("cpu", 2, "linear"):
        model = wrap(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), shape=(1, 6, 6)).eval()
    weight, bias = model.network[1].weight.double(), model.network[1].bias.double()
    label, eps = model(images).argmax(1), 0.1 + 1e-6
    low, high = (images.double() - eps).clamp(0, 1).flatten(1), (images.double() + eps).clamp(0, 1).flatten(1)
    gaps = weight[label][:, None] - weight
    worst = torch.where(gaps > 0, low[:, None], high[:, None])
    truth = (gaps * worst).sum(2) + bias[label][:, None] - bias
    assert torch.allclose(margins(model, images, label, Threat("linf", 0.1), name), truth, atol=1e-6)
    for norm, dual in (("l2", 2), ("l1", torch.inf)):
        x = 0.5 + 0.1 * (images - 0.5)  # far from the ends, so that the box does not matter
        threat = Threat(norm, 0.2)
        logits = model.double()(x.double())
        model.float()
        truth = logits.gather(1, label[:, None]) - logits - (0.2 + 1e-6) * gaps.norm(dual, dim=2)
        assert torch.allclose(margins(model, x, label, threat, "linear"), truth, atol=1e-6)


def test_a_fine_grid_says_how_tight_they_are():
    """Two inputs, so that nothing hides between the points of the grid."""
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    with torch.no_grad():
        for number, weight in enumerate(layers.parameters()):
            weight.copy_(rng.normal(rng.keys(number, "grid", torch.tensor([0])), weight.shape)[0])
    model = wrap(layers, shape=(1, 1, 2)).eval()
    x, threat = rng.uniform(torch.arange(6), (1, 1, 2)), Threat("linf", 0.3)
    label = model(x).argmax(1)
    steps = torch.linspace(-0.3, 0.3, 61)
    grid = torch.cartesian_prod(steps, steps).view(-1, 1, 1, 1, 2)
    with torch.no_grad():
        logits = torch.stack([model((x + move).clamp(0, 1)) for move in grid])
    truth = (logits.gather(2, label.expand(len(grid), -1)[..., None]) - logits).amin(0).double()
    gaps = [
        truth - margins(model, x, label, threat, method) for method in ("interval", "linear", "optimised")
    ]
    assert all((gap >= -1e-5).all() for gap in gaps)
    assert gaps[0].mean() > gaps[1].mean() > gaps[2].mean()
    assert gaps[2].mean() < 0.5 * gaps[0].mean()


def test_eps_of_nothing_gives_the_clean_margin(network, images):
    label = network(images).argmax(1)
    logits = network(images).double()
    clean = logits.gather(1, label[:, None]) - logits
    for method in ("interval", "linear"):
        found = margins(network, images, label, Threat("linf", 1e-9), method)
        assert torch.allclose(found, clean, atol=1e-4), method


def test_neither_the_batch_nor_the_memory_changes_anything(network, images):
    label = network(images).argmax(1)
    threat = THREATS[0]
    whole = margins(network, images, label, threat, "linear")
    alone = [margins(network, images[i : i + 1], label[i : i + 1], threat, "linear") for i in range(2)]
    few = margins(network, images, label, threat, "linear", memory=50_000)
    assert torch.allclose(torch.cat(alone), whole[:2], atol=2e-6)
    assert torch.allclose(few, whole, atol=2e-6)


def test_rounding_is_accounted_for(network, images):
    """The float32 pass is as near to the exact one as it is said to be, on the originals and beside them."""
    graph = read(network).to(CPU, torch.float64)
    threat = Threat("linf", 0.05)
    ball = Ball(images, threat)
    with torch.no_grad():
        bounds = Bounder(graph, CPU).linear(ball)
        error = float32_error(graph, bounds.lower, bounds.upper)
        for key in range(5):
            x = threat.sample(images, rng.keys(key, "rounding", torch.arange(5)))
            assert ((network(x).double() - graph.forward(x.double())).abs() <= error).all()
    assert 0 < error.max() < 1e-3


def test_hidden_neurons_stay_between_their_bounds(network, images):
    graph = read(network).to(CPU, torch.float64)
    with torch.no_grad():
        bounds = Bounder(graph, CPU).linear(Ball(images, Threat("linf", 0.05)))
        for key in range(3):
            x = Threat("linf", 0.05).sample(images, rng.keys(key, "hidden", torch.arange(5))).double()
            values = [x]
            for node in graph.nodes[1:]:
                values.append(node.op.apply(*(values[i] for i in node.inputs)))
            for low, value, high in zip(bounds.lower, values, bounds.upper, strict=True):
                assert ((low - 1e-12 <= value) & (value <= high + 1e-12)).all()


def test_interval_bounds_are_differentiable(images):
    with rng.scope("cpu", 4, "trained"):
        layers = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
        )
    model = wrap(layers, shape=(1, 6, 6)).eval()
    graph, label = read(model), torch.tensor([0, 1, 2, 0, 1])
    worst = -margins_at_last(graph, *interval_bounds(graph.body, images - 0.1, images + 0.1), label)
    nn.functional.cross_entropy(worst, label).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layers.parameters())
    with torch.no_grad():
        layers[0].weight.mul_(2)
        assert torch.allclose(graph.forward(images), model(images), atol=1e-5)  # it follows the parameters
        lows, highs = interval_bounds(graph, images, images)
    assert torch.allclose(lows[-1], highs[-1]) and torch.allclose(lows[-1], model(images), atol=1e-5)
    check(graph, model, images)


def test_relaxations_are_above_and_below():
    low = 2 * rng.uniform(torch.arange(20), (2, 5, 5)) - 1.5
    high = low + rng.uniform(torch.arange(20, 40), (2, 5, 5)) * 1.5
    z = (low + (high - low) * rng.uniform(torch.arange(40, 60), (2, 5, 5))).double()
    index = torch.arange(20)
    for op in (
        Relu(),
        Relu(0.3),
        MaxPool((2, 2), (2, 2)),
        MaxPool((3, 3), (2, 2), (1, 1)),
        MaxPool((2, 2), (1, 1)),
    ):
        relaxed = op.relaxed(low.double(), high.double())
        value = op.apply(z)
        for sign in (1, -1):
            for one in range(value[0].numel()):
                a = torch.zeros_like(value).flatten(1)
                a[:, one] = sign
                back, constant = relaxed.back(a.view_as(value), index)
                linear = (back * z).flatten(1).sum(1) + constant
                assert (linear <= sign * value.flatten(1)[:, one] + 1e-6).all()


def test_a_window_that_one_input_rules_is_exact():
    low = torch.tensor([[2.0, 0.0], [0.5, -1.0]]).view(1, 1, 2, 2)
    relaxed = MaxPool((2, 2), (2, 2)).relaxed(low, low + torch.tensor([1.0, 1, 1, 2]).view(1, 1, 2, 2))
    for sign in (1.0, -1.0):
        back, constant = relaxed.back(torch.full((1, 1, 1, 1), sign), torch.tensor([0]))
        assert back.flatten().tolist() == [sign, 0, 0, 0] and constant.item() == 0


def test_l0_is_refused(images):
    with pytest.raises(ConfigError, match=r"l0 .* choose --norm linf, l2 or l1"):
        Ball(images, Threat("l0", 3))
