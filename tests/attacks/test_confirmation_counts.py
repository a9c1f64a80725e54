"""Passes that confirm a success are counted as they are made: each vote, and each refusal."""

import pytest
import torch
from torch import nn

from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.pace import Pace
from advkit.attacks.engine.search import Search
from advkit.attacks.perturb import make
from advkit.threat import Threat


class Stubborn(nn.Module):
    """Takes every image for one of the first class."""

    def forward(self, x):
        return nn.functional.one_hot(x.new_zeros(len(x)).long(), 2).float()


def attacked(model, searched, data, votes):
    """(what was found of each image, the oracle's own count of forward passes)"""
    threat, cpu = Threat("linf", 0.02), torch.device("cpu")
    oracle, found = Oracle(model, threat, searched, votes=votes), []
    search = Search(
        make("pgd", threat, {"steps": 4}),
        oracle,
        data,
        searched(data.images).detach(),
        seed=0,
        name="pgd",
        pace=Pace(cpu, data.shape, len(data)),
        device=cpu,
    )
    search.run(torch.arange(len(data)), found.append)
    return found, oracle.forwards


@pytest.mark.parametrize("votes", [1, 10])
def test_every_vote_counts(linear, votes):
    model, data = linear
    found, total = attacked(model, model, data, votes)
    assert {one.broken for one in found} == {True, False}
    assert sum(one.forwards for one in found) == total
    assert all(one.forwards == 4 + votes for one in found if not one.broken)


@pytest.mark.parametrize("votes", [1, 10])
def test_refused_successes_count(linear, votes):
    model, data = linear
    found, total = attacked(Stubborn(), model, data.take((data.labels == 0).nonzero()[:, 0]), votes)
    assert not any(one.broken for one in found) and any(one.refuted for one in found)
    assert sum(one.forwards for one in found) == total
