"""On a linear model the smallest perturbation is known: gradient attacks must reach it."""

import pytest

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
