"""The average of weights, against what its decay adds up to."""

from __future__ import annotations

from math import comb

import pytest
import torch
from torch import nn

from advkit.training.ema import Ema


def constant(value: float) -> nn.Module:
    network = nn.BatchNorm1d(3)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(int(value))
    return network


def test_the_ramp_forgets_the_start_as_a_binomial_coefficient_says():
    source, ema = constant(5), Ema(constant(1), decay=0.999)
    for step in range(20):
        ema.update(source, step)
        # The product of (1 + t) / (10 + t) up to here.
        left = 5 - 4 / comb(step + 10, 9)
        assert ema.network.weight[0].item() == pytest.approx(left, rel=1e-6)
        assert ema.network.running_var[0].item() == pytest.approx(left, rel=1e-6)


@pytest.mark.parametrize(("decay", "left"), [(0.5, 0.5**10), (0.0, 0.0)])
def test_after_the_ramp_the_decay_is_constant(decay, left):
    source, ema = constant(0), Ema(constant(1), decay)
    for step in range(100, 110):
        ema.update(source, step)
    assert ema.network.bias[0].item() == pytest.approx(left, rel=1e-6)


def test_counters_are_copied_and_the_source_is_left_alone():
    source = constant(4)
    ema = Ema(constant(1), decay=0.9)
    ema.update(source, 50)
    assert ema.network.num_batches_tracked.item() == 4
    assert all((tensor == 4).all() for tensor in source.state_dict().values())
    assert not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert source.training
    assert all(parameter.requires_grad for parameter in source.parameters())
