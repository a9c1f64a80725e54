"""Expectation over transformation: models that draw random numbers need averaged gradients."""

import pytest
import torch
from torch import nn

from advkit import rng
from advkit.attacks.losses.margin import margin
from advkit.attacks.perturb import fixed
from advkit.threat import Threat


class Noisy(nn.Module):
    """A linear model whose weights are drawn anew at each pass and for each image."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        flat = x.flatten(1)
        score = self.linear(x)[:, 1] + 4 * (flat * torch.randn_like(flat)).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_averaged_gradients_climb_higher(linear, name):
    model, data = linear
    threat = Threat("linf", 0.1)
    climbed = {}
    for samples in (1, 20):
        with rng.scope("cpu", 0, "test"):
            x = fixed(
                Noisy(model),
                data.images,
                data.labels,
                threat=threat,
                attack=name,
                parameters={"steps": 10, "samples": samples, "loss": "margin"},
                ids=data.ids,
                seed=0,
            )
        with torch.no_grad():
            climbed[samples] = float(
                (margin(model(x), data.labels) - margin(model(data.images), data.labels)).mean()
            )
    assert climbed[20] > 1.2 * climbed[1]
