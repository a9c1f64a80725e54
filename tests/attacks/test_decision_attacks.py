"""Attacks that see only decisions: how near they come on a linear model, and what they ask."""

import itertools
import math

import pytest
import torch
from scipy.fft import dctn

from advkit.attacks.attack import Rows
from advkit.attacks.decision import random_image
from advkit.attacks.perturb import make, perturb, searching
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.models.model import evaluation_mode

NAMES = ["hop-skip-jump", "geoda", "sign-opt", "boundary"]


def nearest(model, data, name, norm, **parameters):
    """What is found of each image without a budget."""
    attack = make(name, Threat.whole(norm, data.images[0].numel()), parameters)
    found = []
    with evaluation_mode(model):
        search = searching(model, data, attack, name=name, seed=0, nearest=True)
        search.run(torch.arange(len(data)), found.append)
    return sorted(found, key=lambda each: each.index)


@pytest.mark.parametrize("name", NAMES)
def test_reaches_a_class(convolutional, name):
    model, data = convolutional
    target = (data.labels + 1) % 5
    threat = Threat("l2", 3)
    x = perturb(model, data.images, data.labels, threat, name, parameters={"queries": 200}, target=target).x
    assert (model(x).argmax(1) == target).float().mean() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_query_counter_stops_at_the_limit_however_small(linear, name):
    model, data = linear
    for queries in (2, 3, 17):
        found = nearest(model, data, name, "l2", queries=queries)
        assert {each.forwards for each in found} == {queries}


def test_random_images_differ_and_grow_coarser_in_turn():
    x0 = torch.zeros(2, 1, 9, 9)
    rows = Rows.untargeted(x0, torch.zeros(2, dtype=torch.int64), torch.arange(2), torch.tensor([1, 2]))
    images = [random_image(rows, torch.full((2,), number)) for number in range(6)]
    assert [len(image[0].unique()) for image in images] == [81, 25, 9, 4, 81, 25]
    assert not torch.equal(images[0][0], images[0][1]) and not torch.equal(images[0], images[4])
    assert torch.equal(images[2][:, :, 0, 0], images[2][:, :, 3, 3])


# What each attack may ask next, given all answers so far: an image, or a judgement on one that is random.


def seek():
    for number in itertools.count():
        x, hit = (
            yield lambda x, n=number: len(x.unique()) == (16, 4, 1, 1)[n % 4] and 0 <= x.min() <= x.max() <= 1
        )
        if hit:
            return x


def between(x0, far, share, norm):
    change = far - x0
    reach = share * float(change.abs().max())
    return x0 + (change.clamp(-reach, reach) if norm == "linf" else share * change)


def close(x0, far, norm):
    low, high = 0.0, 1.0
    while high - low > 0.01 / math.sqrt(x0.numel()):
        middle = (low + high) / 2
        _, hit = yield between(x0, far, middle, norm)
        low, high = (low, middle) if hit else (middle, high)
    return between(x0, far, high, norm)


def at(x, centre, distance):
    """Whether ``x`` is so far from ``centre``, or less where the box has kept it back."""
    boxed = bool(((x == 0) | (x == 1)).any())
    return boxed or float((x - centre).norm()) == pytest.approx(distance, rel=1e-3)


def unit(vector):
    return vector / vector.norm()


def normal_at(edge, count, good):
    """Asks around; the mean of the successes less that of the failures, seen from ``edge``."""
    seen, signs = [], []
    for _ in range(count):
        x, hit = yield good
        seen.append(x - edge)
        signs.append(1.0 if hit else -1.0)
    mean = sum(signs) / count
    weights = torch.tensor(signs) - (mean if abs(mean) < 1 else 0)
    return unit((torch.stack(seen) * weights[:, None, None, None]).sum(0))


def rounds(name, x0, norm, probes):
    """HopSkipJump and GeoDA: close in, ask around, leap along the normal."""
    edge = yield from close(x0, (yield from seek()), norm)
    for number in itertools.count(1):
        length = 0.01 * float((edge - x0).norm())
        slow = name == "hop-skip-jump"
        count = math.floor(probes * (math.sqrt(number) if slow else 0.6 ** (-2 / 3 * (number - 1))))

        def good(x, edge=edge, length=length, slow=slow):
            waves = dctn((x - edge)[0].double().numpy(), norm="ortho")
            return at(x, edge, length) and (slow or abs(waves[2:]).max() + abs(waves[:, 2:]).max() < 1e-4)

        normal = yield from normal_at(edge, count, good)
        begun = reach = float((edge - x0).norm() if norm == "l2" else (edge - x0).abs().max())
        reach /= math.sqrt(number) if slow else 1
        way, origin = (normal.sign() if norm == "linf" else normal), (edge if slow else x0)
        while reach >= begun * 2**-12 and reach <= begun * 1.2**7.5:
            x, hit = yield (origin + reach * way).clamp(0, 1)
            if hit:
                edge = yield from close(x0, x, norm)
                break
            reach *= 0.5 if slow else 1.2


def sign_opt(name, x0, norm, probes):
    edge, reach = (yield from close(x0, (yield from seek()), norm)), 0.2
    while True:
        base, better, radius = edge, False, float((edge - x0).norm())

        def good(x, edge=edge, radius=radius):
            return at(x, x0, radius) and float((x - edge).norm()) < 0.011 * radius

        normal = yield from normal_at(edge, probes, good)
        while True:
            way = unit(base + reach * float((base - x0).norm()) * normal - x0)
            x, hit = yield (x0 + float((edge - x0).norm()) * way).clamp(0, 1)
            if hit:
                edge, better, reach = (yield from close(x0, x, norm)), True, 2 * reach
                continue
            reach /= 2 if better else 4
            if better or reach < 2**-10:
                reach = 0.2 if reach < 2**-10 else reach
                break


def boundary(name, x0, norm, probes):
    edge, aside, toward = (yield from close(x0, (yield from seek()), norm)), 0.3, 0.2
    while True:
        radius = float((edge - x0).norm())

        def good(x, edge=edge, radius=radius, aside=aside):
            cosine = float((unit(x - x0) * unit(edge - x0)).sum())
            return at(x, x0, radius) and cosine == pytest.approx(1 / math.hypot(1, aside), abs=0.02)

        x, hit = yield good
        aside = min(1.0, aside * math.exp(0.1 * (hit - 0.5)))
        if hit:
            x, hit = yield x0 + (1 - toward) * (x - x0)
            toward = min(0.5, toward * math.exp(0.1 * (hit - 0.25)))
            edge = x if hit else edge


@pytest.mark.parametrize(
    ("name", "norm", "may", "parameters"),
    [
        ("hop-skip-jump", "l2", rounds, {"probes": 7}),
        ("hop-skip-jump", "linf", rounds, {"probes": 7}),
        ("geoda", "l2", rounds, {"probes": 7, "waves": 2}),
        ("geoda", "linf", rounds, {"probes": 7, "waves": 2}),
        ("sign-opt", "l2", sign_opt, {"probes": 7}),
        ("boundary", "l2", boundary, {"aside": 0.3, "toward": 0.2}),
    ],
)
def test_every_query_follows_from_the_answers(name, norm, may, parameters, linear):
    model, data = linear
    x0, label, ids = data.images[:6], data.labels[:6], data.ids[:6]
    attack = make(name, Threat.whole(norm, 16), {"queries": 161, **parameters})
    asked = []

    class Listening:
        def decisions(self, x):
            said = model(x).argmax(1)
            asked.append((x.clone(), said != label))
            return said

    state = attack.start(Rows.untargeted(x0, label, ids, rng.keys(0, name, ids)))
    for _ in range(attack.steps):
        state = attack.step(state, Listening())
        state.iteration = state.iteration + 1
    assert len(asked) == attack.steps == 160
    for row in range(len(x0)):
        course = may(name, x0[row], norm, 7)
        expected = next(course)
        for step, (x, hit) in enumerate(asked):
            if isinstance(expected, torch.Tensor):
                torch.testing.assert_close(x[row], expected, rtol=0, atol=1e-3)
            else:
                assert expected(x[row]), (row, step)
            expected = course.send((x[row], bool(hit[row])))
