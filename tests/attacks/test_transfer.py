"""Searching on one model and judging by another."""

import copy

import pytest
import torch
from torch import nn

from advkit.attacks.perturb import perturb
from advkit.core import rng
from advkit.core.errors import ModelError
from advkit.core.threat import Threat


class Closed(nn.Module):
    """Gives no gradients away."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        assert not torch.is_grad_enabled()
        return self.model(x)


def test_gradients_of_a_like_model_fool_it(convolutional):
    model, data = convolutional
    other = copy.deepcopy(model)
    with rng.scope("cpu", 0, "other"), torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.3 * parameter.std() * torch.randn_like(parameter)
    threat = Threat("linf", 0.05)

    def fooled(attack, surrogate=None, judge=model):
        x = perturb(judge, data.images, data.labels, threat, attack, surrogate=surrogate).x
        assert threat.contains(x, data.images).all()
        with torch.no_grad():
            return float((model(x).argmax(1) != data.labels).float().mean())

    assert fooled("noise") < fooled("mi-fgsm", other, Closed(model)) <= fooled("mi-fgsm")


def test_a_surrogate_of_other_classes_is_refused(convolutional):
    model, data = convolutional
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ModelError, match="3 classes"):
        perturb(model, data.images, data.labels, Threat("linf", 0.05), "fgsm", surrogate=other)
