"""On a linear model the smallest perturbation is known: gradient attacks must reach it."""

import pytest
import torch

from advkit.attacks.perturb import robust_correct
from advkit.threat import Threat


def distances(model, data, norm):
    """Exact distance of every image to the decision boundary: |score| / dual norm of the weights."""
    score = (data.images.flatten(1) @ model.weight + model.bias).abs()
    dual = model.weight.abs().sum() if norm == "linf" else model.weight.norm()
    return (score / dual).detach()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["fgsm", "r-fgsm", "mi-fgsm", "ni-fgsm", "pgd", "apgd-ce"])
def test_reaches_the_closed_form(linear, name, norm):
    model, data = linear
    smallest = distances(model, data, norm)
    eps = float(smallest.median())
    parameters = {"step": 2.0} if name == "r-fgsm" else {}  # the ball is as wide
    _, robust = robust_correct(model, data, Threat(norm, eps), name, parameters=parameters)
    assert not robust[smallest < eps / 1.01].any()
    assert robust[smallest > eps * 1.001].all()
    assert 0 < int(robust.sum()) < len(data)


def test_noise_finds_less_than_gradients(linear):
    model, data = linear
    eps = float(distances(model, data, "linf").median())
    noise = robust_correct(model, data, Threat("linf", eps), "noise")[1].sum()
    gradient = robust_correct(model, data, Threat("linf", eps), "fgsm")[1].sum()
    assert noise > gradient


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd"])
def test_reaches_the_closed_form_in_l1(linear, name):
    """The cheapest way is through the largest weights: to move a pixel by all it may, one after the other."""
    model, data = linear
    score = (data.images.flatten(1) @ model.weight + model.bias).detach()
    weight, image = model.weight.detach(), data.images.flatten(1)
    room = torch.where((score[:, None] * weight) > 0, image, 1 - image)
    gain, order = (weight.abs() * torch.ones_like(room)).sort(1, descending=True)
    steps = room.gather(1, order)
    before = (gain * steps).cumsum(1) - gain * steps
    last = (before < score.abs()[:, None]).sum(1, keepdim=True) - 1
    rest = (score.abs()[:, None] - before.gather(1, last)) / gain.gather(1, last)
    smallest = ((steps.cumsum(1) - steps).gather(1, last) + rest)[:, 0]
    eps = float(smallest.median())
    _, robust = robust_correct(model, data, Threat("l1", eps), name)
    assert not robust[smallest < eps / 1.01].any()
    assert robust[smallest > eps * 1.001].all()
    assert 0 < int(robust.sum()) < len(data)
