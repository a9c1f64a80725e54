"""The memetic attack: its ascents and its pool, beside plain Python, and what mixing finds."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.perturb import make, perturb
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.evaluation.evaluate import evaluate

EPS = {"linf": 0.1, "l2": 0.3, "l1": 0.9}
MANY, LENGTH, PLACES, ASCENTS = 3, 4, 3, 40
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.Tanh(), nn.Linear(12, 5)).requires_grad_(False)
for seed, weight in enumerate((MODEL[1].weight, MODEL[3].weight)):
    weight.copy_(0.5 * rng.normal(torch.tensor([seed]), tuple(weight.shape))[0])
MODEL[1].bias.copy_(-0.5 * MODEL[1].weight.sum(1)), MODEL[3].bias.zero_()
X = 0.2 + 0.6 * rng.uniform(torch.arange(MANY), (1, 6, 6))
LABEL = MODEL(X).argmax(1)


def rows(**given):
    ids = torch.arange(MANY)
    plain = Rows.untargeted(X, LABEL, ids, rng.keys(0, "t", ids))
    return replace(plain, **({"clean": MODEL(X)} | given))


def trace(norm, given, **parameters):
    """(attack, the states before the first step and after each)"""
    config = {"ascents": ASCENTS, "length": LENGTH, "pool": PLACES} | parameters
    attack = make("memetic", Threat(norm, EPS[norm]), config)
    state = attack.start(given)
    states = [state.take(torch.arange(MANY))]
    for _ in range(attack.steps):
        state = attack.step(state, Oracle(MODEL, attack.threat))
        state.iteration = state.iteration + 1
        states.append(state.take(torch.arange(MANY)))
    return attack, states


def lead(x, label, target):
    """(how far the class leads the true one, its gradient); -1 is the strongest other class"""
    x = x.clone().requires_grad_(True)
    logits = MODEL(x[None])[0]
    others = logits.index_fill(0, torch.tensor([label]), -torch.inf)
    value = (others.max() if target < 0 else logits[target]) - logits[label]
    return value.item(), torch.autograd.grad(value, x)[0]


def steepest(slope, x, norm):
    if norm == "linf":
        return slope.sign()
    if norm == "l2":
        return slope / slope.norm()
    slope = slope.masked_fill(((x == 1) & (slope > 0)) | ((x == 0) & (slope < 0)), 0)
    most = slope.abs() >= slope.abs().flatten().sort().values[-math.ceil(0.05 * 36)]
    return slope.sign() * most / most.sum()


@pytest.mark.parametrize("norm", EPS)
def test_ascents_follow_their_momentum_and_the_pool_keeps_the_best(norm):
    attack, states = trace(norm, rows(clean=torch.zeros(MANY, 0)) if norm == "l2" else rows())
    assert attack.steps == ASCENTS * LENGTH == len(states) - 1
    for i in range(MANY):
        peaks = []
        for number in range(ASCENTS):
            part, momentum, values = states[number * LENGTH :][: LENGTH + 1], 0, []
            target = int(part[0].target[i])
            for taken, (state, after) in enumerate(itertools.pairwise(part)):
                value, slope = lead(state.x[i], int(LABEL[i]), target)
                values.append(value)
                momentum = 0.75 * momentum + slope / slope.abs().mean()
                size = (1 / 3 if number < PLACES else 1 / 6) * EPS[norm] * (1 - taken / LENGTH)
                moved = state.x[i] + size * steepest(momentum, state.x[i], norm)
                if taken < LENGTH - 1:
                    expected = attack.threat.project(moved[None], X[i : i + 1])[0]
                    torch.testing.assert_close(after.x[i], expected, rtol=0, atol=2e-5)
            peaks.append(max(values))
            best = sorted(peaks)[-PLACES:]
            held = part[-1].heights[i].sort().values.tolist()
            assert held[-len(best) :] == pytest.approx(best, abs=1e-5)
        ends = zip(part[-1].pool[i], part[-1].heights[i], part[-1].targets[i], strict=True)
        for point, height, target in ends:
            assert lead(point, int(LABEL[i]), int(target))[0] == pytest.approx(float(height), abs=1e-5)


def test_children_mix_two_points_and_a_few_random_values():
    """Values come from a point in squares of four by four, or singly, and from each of the two."""
    many, grey = 900, torch.tensor([0.25, 0.5, 0.75])
    attack, (state, *_) = trace("linf", rows(), ascents=1)
    attack.threat = Threat("linf", 0.25)
    state = state.take(torch.zeros(many, dtype=torch.long))
    state.rows.x0 = torch.full((many, 2, 6, 6), 0.5)
    state.pool = grey.view(1, 3, 1, 1, 1).expand(many, 3, 2, 6, 6)
    state.targets = torch.tensor([7, 8, 9]).expand(many, 3)
    x, target = attack._mixed(state, rng.keys(0, "children", torch.arange(many)))
    own = x[:, None] == state.pool
    held = own.flatten(2).any(2)
    new = (~own.any(1)).flatten(1).float().mean(1)
    assert 0.09 < new.mean() < 0.11 and 0.17 < new.max() < 0.35 and (own.sum(1) <= 1).all()
    assert held.sum(1).max() == 2 and held.gather(1, target[:, None] - 7).float().mean() > 0.8
    both = held.sum(1) == 2
    share = own.flatten(2).float().mean(2).gather(1, target[:, None] - 7)[:, 0] / (1 - new)
    assert share.mean() == pytest.approx(0.5, abs=0.05) and share.std() == pytest.approx(0.3, abs=0.06)
    pairs = {
        (int(a) - 7, int((h * torch.arange(3)).sum()) - int(a) + 7)
        for a, h in zip(target[both], held[both], strict=True)
    }
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}
    mixed = own[both & (share > 0.3) & (share < 0.7)]
    whole = (mixed[:, :, :, :4, :4].flatten(2).any(2).sum(1) == 1).float().mean()
    assert whole == pytest.approx(0.5, abs=0.1)
    assert (mixed[:, :, :, 1:5, 1:5].flatten(2).any(2).sum(1) == 1).float().mean() < 0.3


def test_first_ascents_take_the_wrong_classes_in_turn():
    order = MODEL(X).scatter(1, LABEL[:, None], -torch.inf).argsort(1, descending=True)
    for classes, turn in ((2, (0, 1, 0)), (3, (0, 1, 2)), (9, (0, 1, 2))):
        _, states = trace("linf", rows(), length=1, ascents=PLACES, classes=classes)
        targets = torch.stack([state.target for state in states[:PLACES]], 1)
        assert torch.equal(targets, order[:, list(turn)])
    wanted = (LABEL + 1) % 5
    _, states = trace("linf", rows(search_target=wanted, target_class=wanted), length=1, ascents=9)
    assert all(torch.equal(state.target, wanted) for state in states[:-1])
    assert (trace("linf", rows(clean=torch.zeros(MANY, 0)), ascents=5)[1][-1].target == -1).all()


class Bumpy(nn.Module):
    """Every value has maxima at both ends of [0, 1], the upper twice as high; nearly all have to be there."""

    def forward(self, x):
        way = 2 * x.flatten(1) - 1
        score = torch.maximum(way, -way / 2).mean(1) - 0.97
        return torch.stack([torch.zeros_like(score), score], 1)


def test_mixing_finds_what_independent_starts_do_not():
    x, label, threat = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.long), Threat("linf", 0.5)
    alone = perturb(Bumpy(), x, label, threat, "pgd", parameters={"steps": 8, "restarts": 400})
    mixed = perturb(Bumpy(), x, label, threat, "memetic", parameters={"length": 8, "ascents": 400})
    assert not alone.success.any() and mixed.success.all()
    assert (mixed.backwards < 400 * 8).all() and (mixed.backwards > 16 * 8).all()


def test_it_searches_in_float32_whatever_is_asked_for(monkeypatch):
    asked = []

    def search_model(model, precision, *others):
        asked.append(precision)
        return model

    monkeypatch.setattr("advkit.attacks.perturb.search_model", search_model)
    monkeypatch.setattr("advkit.evaluation.cascade.search_model", search_model)
    model, few = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), {"ascents": 2, "length": 2, "pool": 2}
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    subject = model, (x, model(x).argmax(1))
    how = {"precision": "bfloat16", "progress": False}
    evaluate(*subject, Threat("linf", 1e-3), "memetic", parameters={"memetic": few}, **how)
    perturb(model, *subject[1], Threat("linf", 1e-3), "memetic", parameters=few, **how)
    stage = asked.count("float32")
    assert stage >= 2
    perturb(model, *subject[1], Threat("linf", 1e-3), "pgd", **how)
    assert asked[-1] == "bfloat16" and asked.count("float32") == stage
