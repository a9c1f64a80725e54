"""Attacks that see only decisions: how near they come on a linear model, and what they ask."""

import pytest
import torch

from advkit.attacks.attack import Rows
from advkit.attacks.parts.decision import random_image
from advkit.attacks.perturb import make, perturb, searching
from advkit.models.mode import evaluation_mode
from advkit.threat import Threat

NAMES = ["hop-skip-jump", "geoda", "sign-opt", "boundary"]


def nearest(model, data, name, norm, **parameters):
    """What is found of each image without a budget."""
    attack = make(name, Threat.whole(norm, data.images[0].numel()), parameters)
    found = []
    with evaluation_mode(model):
        search = searching(model, data, attack, name=name, seed=0, nearest=True)
        search.run(torch.arange(len(data)), found.append)
    return sorted(found, key=lambda each: each.index)


def closed_form(model, data, norm):
    """|score| divided by the dual norm of the weights."""
    score = (data.images.flatten(1) @ model.weight + model.bias).abs()
    return (score / (model.weight.norm() if norm == "l2" else model.weight.abs().sum())).detach()


@pytest.mark.parametrize(
    ("name", "norm", "queries", "factor"),
    [
        ("hop-skip-jump", "l2", 400, 1.1),
        ("hop-skip-jump", "linf", 400, 1.2),
        ("geoda", "l2", 400, 1.2),
        ("geoda", "linf", 400, 1.2),
        ("sign-opt", "l2", 400, 1.1),
        ("boundary", "l2", 600, 1.1),
    ],
)
def test_comes_near_the_closed_form_within_its_queries(linear, name, norm, queries, factor):
    model, data = linear
    found = nearest(model, data, name, norm, queries=queries)
    smallest = closed_form(model, data, norm)
    ratio = torch.tensor([each.distance for each in found]) / smallest
    assert all(each.broken for each in found)
    assert ratio.min() > 0.999
    assert ratio.median() < factor
    assert {each.backwards for each in found} == {0}
    assert max(each.forwards for each in found) <= queries


@pytest.mark.parametrize("name", NAMES)
def test_more_queries_come_nearer(convolutional, name):
    model, data = convolutional
    few, many = (
        torch.tensor([each.distance for each in nearest(model, data, name, "l2", queries=n)])
        for n in (60, 500)
    )
    assert (many <= few).all()
    assert many.median() < 0.8 * few.median()


@pytest.mark.parametrize("name", NAMES)
def test_reaches_a_class(convolutional, name):
    model, data = convolutional
    target = (data.labels + 1) % 5
    threat = Threat("l2", 3)
    x = perturb(model, data.images, data.labels, threat, name, parameters={"queries": 200}, target=target)
    assert (model(x).argmax(1) == target).float().mean() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_query_counter_stops_at_the_limit_however_small(linear, name):
    model, data = linear
    for queries in (2, 3, 17):
        found = nearest(model, data, name, "l2", queries=queries)
        assert {each.forwards for each in found} == {queries}


def test_random_images_differ_and_grow_coarser():
    x0 = torch.zeros(2, 1, 9, 9)
    rows = Rows.untargeted(x0, torch.zeros(2, dtype=torch.int64), torch.arange(2), torch.tensor([1, 2]))
    fine, coarse = (random_image(rows, torch.full((2,), number)) for number in (0, 2))
    assert not torch.equal(fine[0], fine[1])
    assert len(fine[0].unique()) == 81 and len(coarse[0].unique()) == 9
    assert torch.equal(coarse[:, :, 0, 0], coarse[:, :, 3, 3])


@pytest.mark.parametrize("name", NAMES)
def test_every_phase_is_independent_of_the_batch(convolutional, name):
    model, data = convolutional
    few, threat = data.limit(4), Threat("l2", 0.01)

    def last(size):
        return perturb(
            model,
            few.images,
            few.labels,
            threat,
            name,
            parameters={"queries": 180},
            batch_size=size,
            precision="float32",
        )

    assert torch.equal(last(1), last(3))
