"""Gradient attacks toward a class."""

import pytest

from advkit.attacks.perturb import perturb
from advkit.core.threat import Threat

NAMES = [
    "fgsm",
    "r-fgsm",
    "mi-fgsm",
    "ni-fgsm",
    "di-fgsm",
    "ti-fgsm",
    "pgd",
    "apgd",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_climbed_toward(convolutional, name):
    model, data = convolutional
    target = (data.labels + 1) % 5
    threat = Threat("linf", 0.25)

    def reached(search_target):
        x = perturb(model, data.images, data.labels, threat, name, target=search_target).x
        assert threat.contains(x, data.images).all()
        return float((model(x).argmax(1) == target).float().mean())

    assert reached(target) > max(0.7, 2 * reached(None))


def test_in_l1_too(convolutional):
    model, data = convolutional
    target = (data.labels + 1) % 5
    for name in ("pgd", "apgd-ce"):
        x = perturb(model, data.images, data.labels, Threat("l1", 10.0), name, target=target).x
        assert float((model(x).argmax(1) == target).float().mean()) > 0.9
