"""Each gradient attack step by step, beside its published algorithm in plain Python, one image at a time."""

import itertools
import math
import re

import pytest
import torch
from torch import nn

from advkit.attacks.attack import ATTACKS, Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.parts.balls import fewest
from advkit.attacks.parts.boundary import toward
from advkit.attacks.perturb import make
from advkit.core import rng
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat

MANY, SHAPE = 4, (1, 3, 3)
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


MODEL = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 4)).requires_grad_(False)
"""Four classes, curved boundaries."""
for seed, weight in enumerate((MODEL[1].weight, MODEL[3].weight)):
    weight.copy_((1.5 - 0.5 * seed) * rng.normal(torch.tensor([seed]), tuple(weight.shape))[0])
MODEL[1].bias.copy_(-0.5 * MODEL[1].weight.sum(1)), MODEL[3].bias.zero_()
X = 0.2 + 0.6 * rng.uniform(torch.arange(MANY), SHAPE)
X[:, 0, 0, 0], X[:, 0, 0, 1] = 0, 1  # two pixels at the edge of the box
LABEL = MODEL(X).argmax(1)


def rows_of(x0=X, label=LABEL):
    ids = torch.arange(len(x0))
    return Rows.untargeted(x0, label, ids, rng.keys(0, "t", ids))


def trace(name, threat, parameters, steps, oracle=None, x0=X, label=LABEL):
    """States before the first step and after each: copies, since attacks reuse memory."""
    attack = make(name, threat, parameters)
    state = attack.start(rows_of(x0, label))
    states = [state.take(torch.arange(len(x0)))]
    for _ in range(steps):
        state = attack.step(state, oracle or Oracle(MODEL, threat))
        state.iteration = state.iteration + 1
        states.append(state.take(torch.arange(len(x0))))
    return states


def margin_at(x, label):
    """(largest other logit minus the label's, its gradient)"""
    x = x.clone().requires_grad_(True)
    logits = MODEL(x[None])[0]
    others = logits.clone()
    others[label] = -torch.inf
    value = others.max() - logits[label]
    (slope,) = torch.autograd.grad(value, x)
    return value.item(), slope


def same(states, reference, atol=2e-4, told=LABEL):
    """Whether the reference, a generator of the points of one image that is told where it got, goes along."""
    for i, x0 in enumerate(states[0].rows.x0):
        goes = reference(x0, int(told[i]))
        expected = next(goes)
        for state in states[1:]:
            torch.testing.assert_close(state.x[i], expected, rtol=0, atol=atol)
            expected = goes.send(state.x[i])


def size_of(change, norm):
    return float(torch.linalg.vector_norm(change.flatten(), {"linf": torch.inf, "l2": 2, "l1": 1}[norm]))


def free(x, slope):
    """The slope without the values that it would lead out of the box."""
    return slope.masked_fill(((x == 1) & (slope > 0)) | ((x == 0) & (slope < 0)), 0)


def cosine(k, steps, first, last):
    return last + (first - last) * (1 + math.cos(math.pi * k / steps)) / 2


class Trial:
    """The binary search of Carlini and Wagner for the weight of success, of one image."""

    def __init__(self, constant):
        self.constant, self.low, self.high, self.number = constant, 0.0, math.inf, 0
        self.begin()

    def begin(self):
        self.k, self.won, self.lowest, self.looked = 0, False, math.inf, math.inf

    def over(self, won, objective, length):
        self.won, self.lowest = self.won or won, min(self.lowest, objective)
        look = self.k % max(length // 10, 1) == 0
        stuck = look and self.lowest > 0.9999 * self.looked
        self.looked = self.lowest if look else self.looked
        self.k += 1
        if self.k < length and not stuck:
            return False
        if self.won:
            self.high = min(self.high, self.constant)
        else:
            self.low = max(self.low, self.constant)
        self.constant = (self.low + self.high) / 2 if self.high < math.inf else 10 * self.constant
        self.number += 1
        self.begin()
        return True


@pytest.mark.parametrize(
    ("steps", "searches", "first"), [(60, 3, 0.05), (40, 4, 0.5), (5, 9, 0.5), (60, 3, 1e-6)]
)
def test_cw_descends_as_adam_does_and_searches_its_constant(steps, searches, first):
    parameters = {"steps": steps, "binary_searches": searches, "learning_rate": 0.03, "first_constant": first}
    states = trace("cw", Threat.whole("l2", 9), parameters, steps)
    ended = {}

    def reference(x0, label):
        trial, start, x = Trial(first), torch.atanh((2 * x0 - 1) * (1 - 1e-6)), x0
        free = start.clone().requires_grad_(True)
        adam = torch.optim.Adam([free], 0.03)
        for step in itertools.count():
            value, slope = margin_at(x, label)
            objective = float((x - x0).square().sum()) + trial.constant * max(-value, 0)
            gradient = 2 * (x - x0) - (trial.constant * slope if value < 0 else 0)
            free.grad = gradient * 2 * x * (1 - x)
            adam.step()
            if trial.over(value > 0, objective, steps // min(searches, steps)):
                free.data.copy_(start)
                adam = torch.optim.Adam([free], 0.03)
            if trial.number >= min(searches, steps):
                ended.setdefault(int((x0 == X).flatten(1).all(1).nonzero()[0]), step)
            x = (free.detach().tanh() + 1) / 2
            x = yield x

    same(states, reference, 1e-3)
    for image, step in ended.items():  # a row that has made all its trials leaves
        assert states[step + 1].iteration[image] == steps


@pytest.mark.parametrize(
    ("steps", "beta", "first"), [(40, 0.02, None), (40, 0.02, 3.0), (9, 0.05, None), (60, 0.3, None)]
)
def test_ead_is_fista_with_shrinkage(steps, beta, first):
    parameters = {"steps": steps, "beta": beta, "step_size": 0.05, "binary_searches": 3}
    parameters |= {} if first is None else {"first_constant": first}
    states = trace("ead", Threat.whole("l1", 9), parameters, steps)
    searches = min(3, max(steps // 10, 1))
    length = steps // searches

    def reference(x0, label):
        constant = first or 2 * beta / (0.05 * float(margin_at(x0, label)[1].abs().max()))
        trial, old, x = Trial(constant), x0, x0
        while True:
            value, slope = margin_at(x, label)
            change, k = x - x0, trial.k
            objective = float(change.square().sum() + beta * change.abs().sum())
            objective += trial.constant * max(-value, 0)
            gradient = 2 * change - (trial.constant * slope if value < 0 else 0)
            moved = change - 0.05 * math.sqrt(max(0, 1 - k / length)) * gradient
            shrunk = (x0 + moved.sign() * (moved.abs() - beta).clamp(min=0)).clamp(0, 1)
            ahead = (shrunk + k / (k + 3) * (shrunk - old)).clamp(0, 1)
            if trial.over(value > 0, objective, length) and trial.number < searches:
                shrunk = ahead = x0
            old, x = shrunk, ahead
            x = yield x

    same(states, reference, 1e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_sigma_zero_descends_margin_and_smooth_count(threshold):
    parameters = {"steps": 25, "threshold_step": 0.1, "sigma": 0.01, "step_size": 0.5}
    parameters["first_threshold"] = threshold
    states = trace("sigma-zero", Threat.whole("l0", 9), parameters, 25)

    def reference(x0, label):
        x, bar = x0.clone().requires_grad_(True), threshold
        adam = torch.optim.Adam([x], 1.0)
        for step in itertools.count():
            value, slope = margin_at(x.detach(), label)
            change = (x - x0).square()
            (count,) = torch.autograd.grad((change / (change + 0.01)).mean(), x)
            gradient = count - (slope if value <= 0 else 0)
            size = cosine(step, 25, 0.5, 0.05)
            bar = min(1.0, max(0.0, bar + (0.1 if value > 0 else -0.1) * size))
            adam.param_groups[0]["lr"] = size
            x.grad = gradient / gradient.abs().max().clamp(min=1e-12)
            adam.step()
            with torch.no_grad():
                x.clamp_(0, 1)
                x.copy_(torch.where((x - x0).abs() < bar, x0, x))
            yield x.detach().clone()

    same(states, reference)


def filled(x0, change, radius, norm):
    """``change`` taken to the edge of the ball, then into the box."""
    size = size_of(change, norm)
    if norm == "l2" or size < radius:
        change = change * (radius / size)
    elif norm == "linf":
        change = change.clamp(-radius, radius)
    elif norm == "l1":  # by bisection on what every entry loses
        low, high = 0.0, float(change.abs().max())
        for _ in range(60):
            middle = (low + high) / 2
            left = float((change.abs() - middle).clamp(min=0).sum())
            low, high = (middle, high) if left > radius else (low, middle)
        change = change.sign() * (change.abs() - high).clamp(min=0)
    return (x0 + change).clamp(0, 1)


def farthest(x0, norm):
    return size_of(torch.maximum(x0, 1 - x0), norm)


def test_ddn_goes_from_sphere_to_sphere():
    states = trace("ddn", Threat.whole("l2", 9), {"steps": 15, "gamma": 0.1, "first_radius": 0.6}, 15)

    def reference(x0, label):
        x, radius = x0, 0.6
        for step in itertools.count():
            value, _ = margin_at(x, label)
            leaf = x.clone().requires_grad_(True)
            loss = nn.functional.cross_entropy(MODEL(leaf[None]), torch.tensor([label]))
            (slope,) = torch.autograd.grad(loss, leaf)
            radius = min(radius * (0.9 if value > 0 else 1.1), farthest(x0, "l2"))
            change = x - x0 + cosine(step, 15, 1.0, 0.01) * slope / slope.norm()
            x = filled(x0, change, radius, "l2")
            x = yield x

    same(states, reference)
    wide = trace("ddn", Threat.whole("l2", 9), {"steps": 3, "first_radius": 50.0}, 1)[1]
    torch.testing.assert_close(wide.radius, torch.tensor([farthest(x0, "l2") for x0 in X]))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fmn_walks_on_the_edge_of_a_ball(norm):
    states = trace("fmn", Threat.whole(norm, 9), {"steps": 16, "gamma": 0.2, "gamma_final": 0.01}, 16)

    def reference(x0, label):
        x, radius, nearest = x0, 1.0, math.inf
        for step in itertools.count():
            value, slope = margin_at(x, label)
            distance = size_of(x - x0, norm)
            slope = free(x, slope)
            gamma = cosine(step, 16, 0.2, 0.01)
            if value > 0:
                nearest = min(nearest, distance)
                radius = min(radius * (1 - gamma), nearest)
            elif nearest < math.inf:
                radius *= 1 + gamma
            else:  # a little beyond where a linear margin would be zero
                radius = (distance - value / size_of(slope, DUAL[norm])) * (1 + gamma)
            radius = min(radius, farthest(x0, norm))
            way = slope.sign() if norm == "linf" else slope
            x = filled(x0, x - x0 + cosine(step, 16, 1.0, 0.01) * way / way.norm(), radius, norm)
            x = yield x

    same(states, reference)


def test_fmn_in_l0_changes_the_radius_by_whole_values():
    states = trace("fmn", Threat.whole("l0", 9), {"steps": 12, "gamma": 0.5, "gamma_final": 0.4}, 12)
    for i, (x0, label) in enumerate(zip(X, LABEL.tolist(), strict=True)):
        nearest = radius = 9
        for step, (before, after) in enumerate(itertools.pairwise(states)):
            x = before.x[i]
            value, slope = margin_at(x, label)
            gamma, way = cosine(step, 12, 0.5, 0.4), free(x, slope)
            if value > 0:
                nearest = min(nearest, int((x != x0).sum()))
                radius = min(radius - 1, math.floor(radius * (1 - gamma)), nearest)
            elif step == 0:
                gain = (way.abs() * torch.where(way > 0, 1 - x, x)).flatten().sort(descending=True).values
                radius = 1 + int((gain.cumsum(0) < -value).sum())
                assert fewest(slope[None], x[None], torch.tensor([-value])) == radius
            else:
                radius = max(radius + 1, math.floor(radius * (1 + gamma)))
            radius = min(max(radius, 0), 9)
            assert after.radius[i] == radius
            moved = x + cosine(step, 12, 8.0, 2.4) * way / way.norm()
            boxed = moved.clamp(0, 1)
            gain = ((moved - x0).square() - (moved - boxed).square()).flatten()
            kept = gain.argsort(descending=True)[:radius]
            expected = x0.flatten().clone()
            expected[kept] = boxed.flatten()[kept]
            torch.testing.assert_close(after.x[i].flatten(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fab_projects_and_ends_with_probes(norm):
    """Toward the likeliest other class: four times as its algorithm 1 says, then three probes."""
    parameters = {"steps": 4, "targets": 0, "alpha_max": 0.3, "eta": 1.2, "beta": 0.8}
    states = trace("fab-t", Threat.whole(norm, 9), parameters, 8)
    assert make("fab-t", Threat.whole(norm, 9), parameters).steps == 8

    def way(x, slope, rise):
        return toward(x.view(1, 1, -1), slope.view(1, -1), torch.tensor([[rise]]), norm).view(SHAPE)

    def reference(x0, label):
        x, best, near, low, share, below = x0, None, math.inf, 0.0, 1.0, -1.0
        for step in itertools.count():
            value, slope = margin_at(x, label)
            distance = size_of(x - x0, norm)
            nearer = value > 0 and distance < near
            if share < 1 and value <= 0:
                low, below = share, value
            elif nearer:
                low /= share
            if nearer:
                best, near, above = x, distance, value
            rise = float((slope * (x - x0)).sum())
            if step >= 4 and best is not None:
                zero = min(below, 0.0) / (below - above)
                share = low + (1 - low) * (0.1 + 0.9 * zero)
                x = x0 + share * (best - x0)
            elif value > 0 and not nearer:
                x = x0 + 0.8 * (x - x0)
            else:
                kept = 0.8 if nearer else 1.0
                point = x0 + kept * (x - x0)
                own, original = way(point, slope, (1 - kept) * rise - value), way(x0, slope, rise - value)
                alpha = min(size_of(own, norm) / (size_of(own, norm) + size_of(original, norm)), 0.3)
                x = ((1 - alpha) * (point + 1.2 * own) + alpha * (x0 + 1.2 * original)).clamp(0, 1)
            x = yield x

    same(states, reference, 1e-3)
    for targets, target_class, first in ((9, None, 3), (2, None, 2), (0, None, 1), (9, LABEL, 1)):
        rows = rows_of()  # of 4 variants: those behind the targets start from noise
        rows.variant, rows.clean, rows.target_class = torch.arange(4), torch.zeros(4, 4), target_class
        start = make("fab-t", Threat(norm, 0.1), {"targets": targets}).start(rows)
        away = [size_of((x - x0).flatten()[2:], norm) for x, x0 in zip(start.x, X, strict=True)]
        assert [size > 0 for size in away] == [variant >= first for variant in range(4)]
        assert 0.03 < max(away) <= 0.0501  # half the budget, less what the box keeps back


def apgd(x0, x, norm, eps, steps, losses, slopes):
    """Croce and Hein 2020, algorithm 1, of one image whose losses and gradients are given."""
    checks, length = [max(int(0.22 * steps), 1)], max(int(0.22 * steps), 1)
    while checks[-1] < steps:
        length = max(length - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        checks.append(checks[-1] + length)
    if steps == 100:
        assert checks[:-1] == [22, 41, 57, 70, 80, 87, 93, 99]  # as published

    def inside(z):
        change = z - x0
        change = change.clamp(-eps, eps) if norm == "linf" else change * min(1, eps / float(change.norm()))
        return (x0 + change).clamp(0, 1)

    size, best, before, halved, last, at_check = 2 * eps, None, None, True, 0, losses[0]
    for k in range(steps):
        loss, slope = losses[k], slopes[k]
        if best is None or loss > best[0]:
            best = loss, x, slope
        if k in checks:
            rose = sum(losses[i] > losses[i - 1] for i in range(last + 1, k + 1))
            halve = rose <= 0.75 * (k - last) or (not halved and at_check >= best[0])
            size, (_, x, slope) = (size / 2, best) if halve else (size, (loss, x, slope))
            halved, last, at_check = halve, k, best[0]
        z = inside(x + size * (slope.sign() if norm == "linf" else slope / slope.norm()))
        share = 1.0 if before is None else 0.75
        moved = x + share * (z - x) + (1 - share) * (x - (x if before is None else before))
        before = x
        x = yield inside(moved)
    yield x


class Scripted:
    """Answers with given losses (T, R) and gradients (T, R, C, H, W)."""

    def __init__(self, losses, slopes):
        self.told = iter(zip(losses, slopes, strict=True))

    def loss_and_grad(self, x, rows, loss, samples=1):
        value, slope = next(self.told)
        return value.clone(), slope.clone(), torch.zeros(len(x), 4)


def scripted(norm, eps, steps):
    """Auto-PGD of 24 images told losses that rise in some stretches and not in others, and any gradients."""
    key, x0 = rng.keys(1, "script", torch.arange(steps)), X.repeat(6, 1, 1, 1)
    rises = rng.uniform(key, (24,)) < torch.linspace(0.3, 1.0, 24)
    losses = (torch.where(rises, 1.0, -1.0) * (1 + rng.uniform(key + 1, (24,)))).cumsum(0)
    slopes = rng.normal(key + 2, (24, *SHAPE))
    oracle, threat = Scripted(losses, slopes), Threat(norm, eps)
    states = trace("apgd-ce", threat, {"steps": steps}, steps, oracle, x0, LABEL.repeat(6))
    return states, losses, slopes


@pytest.mark.parametrize("steps", [100, 33, 1])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_halves_and_goes_back_where_published(norm, steps):
    states, losses, slopes = scripted(norm, 0.3, steps)
    noise = [size_of((x - x0).flatten(), norm) for x, x0 in zip(states[0].x, states[0].rows.x0, strict=True)]
    inner = [
        size_of((x - x0).flatten()[2:], norm) for x, x0 in zip(states[0].x, states[0].rows.x0, strict=True)
    ]
    assert max(inner) <= max(noise) <= 0.3 + 1e-6 and min(noise) > 0.1
    assert max(noise) > 0.2999 or norm == "l2"  # exactly eps, but for the box

    def reference(x0, i):
        return apgd(x0, states[0].x[i], norm, 0.3, steps, losses[:, i].tolist(), slopes[:, i])

    same(states, reference, told=range(24))


@pytest.mark.parametrize(("steps", "wide"), [(100, 30), (26, 8), (2, 0)])
def test_apgd_in_l1_adapts_its_sparsity_in_three_balls(steps, wide):
    states, losses, slopes = scripted("l1", 0.7, steps)
    begins = sorted({0, wide, 2 * wide})
    for i, each in enumerate(states[0].rows.x0):
        for k in range(steps):
            x, loss, slope = states[k].x[i], float(losses[k, i]), slopes[k, i]
            if k in begins:
                phase = max(p for p, first in enumerate((0, wide, 2 * wide)) if first <= k)
                length = max(int(0.04 * (wide if phase < 2 else steps - 2 * wide)), 1)
                begun, best, radius = k, None, 0.7 * (3 - phase)
                size, count = radius, int((x != each).sum()) if k else 0.2 * 9 * 1.5
            if best is None or loss > best[0]:
                best = loss, x, slope
            if k > begun and (k - begun) % length == 0:
                changed = int((best[1] != each).sum())
                sparser, count = changed / count < 0.95, changed
                size = radius if sparser else max(size / 1.5, 0.1 * radius)
                x, slope = best[1:] if sparser else (x, slope)
            able = ((x + slope.sign()).clamp(0, 1) != x).flatten()
            strength = slope.abs().flatten() * able
            many = min(max(math.ceil(round(count / 1.5, 6)), 1), 9)
            chosen = (strength >= strength.sort(descending=True).values[many - 1]) & able
            step = (slope.sign().flatten() * chosen / max(int(chosen.sum()), 1)).view(SHAPE)
            moved, ball = (x + size * step, radius) if k + 1 not in begins else (best[1], radius - 0.7)
            expected = Threat("l1", ball).project(moved[None], each[None])[0]
            torch.testing.assert_close(states[k + 1].x[i], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "norm"),
    [("pgd", "l1"), *((name, norm) for name in ("pgd", "r-fgsm", "fgsm", "apgd") for norm in ("linf", "l2"))],
)
def test_plain_steps_and_their_defaults(name, norm):
    """The first step from where the attack starts, in closed form."""
    threat = Threat(norm, 0.1)
    before, after = trace(name, threat, {"steps": 5} if "f" not in name else {}, 1)
    assert torch.equal(before.x, X) == (name == "fgsm") and threat.contains(before.x, X).all()
    assert torch.equal(trace("pgd", threat, {"start": "original"}, 0)[0].x, X)
    assert "f" not in name or make(name, threat).steps == 1
    slopes = slopes_of(name, before.x)
    size = {"pgd": 2.5 * 0.1 / 5, "r-fgsm": 0.125, "fgsm": 0.1}.get(name, 0.2)
    if norm == "l1":  # one value of nine, of those that can move
        able = (before.x + slopes.sign()).clamp(0, 1) != before.x
        top = (slopes.abs() * able).flatten(1).argmax(1)
        step = torch.zeros(MANY, 9).scatter(1, top[:, None], 1.0).view_as(X) * slopes.sign()
    else:
        step = slopes.sign() if norm == "linf" else slopes / slopes.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(after.x, threat.project(before.x + size * step, X), rtol=0, atol=1e-5)


def slopes_of(name, x):
    """Gradients of cross-entropy (of the margin, for Auto-PGD)."""
    if name == "apgd":
        return torch.stack([margin_at(x, label)[1] for x, label in zip(x, LABEL.tolist(), strict=True)])
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(nn.functional.cross_entropy(MODEL(leaf), LABEL, reduction="sum"), leaf)[0]


def test_noise_draws_as_many_points_as_it_is_told():
    states = trace(
        "noise", Threat("l2", 0.3), {"draws": 5}, make("noise", Threat("l2", 0.3), {"draws": 5}).steps
    )
    assert len(states) == 5 == len(torch.stack([state.x[0] for state in states]).unique(dim=0))
    assert all(Threat("l2", 0.3).contains(state.x, X).all() for state in states)


def deepfool_step(x, label, norm, classes):
    """The change from ``x`` onto the nearest linearised boundary; in l2 by the pixels that can move."""
    x = x.clone().requires_grad_(True)
    logits = MODEL(x[None])[0]
    ways = []
    for other in [c for c in logits.argsort(descending=True).tolist() if c != label][:classes]:
        value = logits[other] - logits[label]
        (slope,) = torch.autograd.grad(value, x, retain_graph=True)
        size = float(slope.abs().sum() if norm == "linf" else slope.norm())
        ways.append((abs(value.item()) / size, slope, abs(value.item())))
    length, slope, value = min(ways, key=lambda each: each[0])
    if norm == "linf":
        return length * slope.sign()
    free = slope * ((x + slope.sign()).clamp(0, 1) != x)
    return value / max(float(free.norm()) ** 2, 1e-12) * free


@pytest.mark.parametrize("classes", [None, 1, 2])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_steps_onto_the_nearest_boundary_of_those_it_looks_at(norm, classes):
    x0, steps, share = X.clone(), 6, 0.3 if classes == 1 else 0.0
    x0[:, 0, :, :2], x0[:, 0, :, 2] = x0[:, 0, :, :2].round(), 0.9  # nearly all at the edge of the box
    labels = MODEL(x0).argmax(1)
    given = {"steps": 9, "overshoot": share, "classes": classes}
    states = trace("deepfool", Threat.whole(norm, 9), given, steps, x0=x0, label=labels)
    longest = 0
    for i, label in enumerate(labels.tolist()):
        change = torch.zeros_like(x0[i])
        for k in range(steps):
            x = states[k].x[i]
            if margin_at(x, label)[0] > 0:  # crossed: finished
                assert states[k + 1].iteration[i] == 9 and torch.equal(states[k + 1].x[i], x)
                break
            change = (x0[i] + change + deepfool_step(x, label, norm, classes)).detach().clamp(0, 1) - x0[i]
            expected = (x0[i] + (1 + share) * change).clamp(0, 1)
            torch.testing.assert_close(states[k + 1].x[i], expected, rtol=0, atol=1e-4)
            longest = max(longest, k)
    assert longest >= 1 or classes == 1


NUMBERS = """
apgd steps=100>=1 restarts=1>=1 samples=1>=1 targets=0>=0
apgd-ce steps=100>=1 restarts=1>=1 samples=1>=1
apgd-dlr steps=100>=1 restarts=1>=1 samples=1>=1
apgd-t steps=100>=1 restarts=1>=1 samples=1>=1 targets=9>=1
boundary queries=5000>=2 aside=0.1>0 toward=0.1>0<1
cw steps=9000>=1 binary_searches=9>=1 learning_rate=0.01>0 first_constant=0.001>0
ddn steps=100>=1 gamma=0.05>0<1 first_radius=1>0
deepfool steps=50>=1 overshoot=0.02>=0 classes=9>=1
di-fgsm steps=10>=1 step_size=None>0 decay=1>=0 probability=0.5>=0<=1 smallest=0.9>0<=1 restarts=1>=1
ead steps=9000>=1 binary_searches=9>=1 step_size=0.01>0 beta=0.01>=0 first_constant=None>0
fab steps=100>=1 restarts=1>=1 alpha_max=0.1>=0<=1 eta=1.05>=1 beta=0.9>0<1 classes=None>=1
fab-t steps=100>=1 restarts=1>=1 alpha_max=0.1>=0<=1 eta=1.05>=1 beta=0.9>0<1 targets=9>=0
fmn steps=100>=1 step_size=None>0 gamma=0.05>0<1 gamma_final=0.001>0<1
geoda queries=1000>=2 probes=30>=1 waves=10>=1
hop-skip-jump queries=1000>=2 probes=50>=1
mi-fgsm steps=10>=1 step_size=None>0 decay=1>=0
nes queries=5000>=1 samples=50>=2 restarts=1>=1 sigma=0.01>0 step_size=None>0 momentum=0.9>=0<1
ni-fgsm steps=10>=1 step_size=None>0 decay=1>=0
noise draws=10>=2
pgd steps=40>=1 step_size=None>0 restarts=1>=1 samples=1>=1 share=0.01>0<=1
r-fgsm step=1.25>0 restarts=1>=1
sigma-zero steps=1000>=1 step_size=1>0 sigma=0.001>0 first_threshold=0.3>=0<=1 threshold_step=0.01>0
sign-opt queries=1000>=2 probes=100>=1
simba queries=5000>=1 share=0.5>0<=1 step_size=None>0 restarts=1>=1
spsa queries=5000>=1 samples=20>=2 restarts=1>=1 sigma=0.01>0 step_size=None>0
square queries=5000>=1 p=0.8>0<=1 restarts=1>=1
ti-fgsm steps=10>=1 step_size=None>0 decay=1>=0 kernel=15>=1
"""
"""Of each attack, the default of every number, and the values that it may have."""


@pytest.mark.parametrize("line", NUMBERS.strip().splitlines(), ids=lambda line: line.partition(" ")[0])
def test_numbers_are_the_published_ones_and_wrong_ones_are_refused(line):
    name, *words = line.split()
    threat = Threat(ATTACKS.get(name).norms[0], 1)
    for key, default, bounds in (re.match(r"(\w+)=([\w.-]+)(.*)", word).groups() for word in words):
        value = getattr(make(name, threat).config, key)
        assert str(value) == default if value is None else value == float(default)
        step = 1 if isinstance(value, int) or key == "classes" else 0.001
        for sign, number in re.findall(r"([<>]=?)([\d.]+)", bounds):
            inward = step if sign[0] == ">" else -step
            edge = type(step)(float(number))
            good, bad = (edge, edge - inward) if "=" in sign else (edge + inward, edge)
            make(name, threat, {key: good})
            with pytest.raises(ConfigError, match=key):
                make(name, threat, {key: bad})
