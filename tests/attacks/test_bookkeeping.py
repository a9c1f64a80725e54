"""What a search counts: every pass that confirms a success, each refusal, the seconds of a step."""

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


def test_the_batch_size_tuner_hears_the_seconds_of_one_step(linear, monkeypatch):
    """Where the device is looked at only now and then, several steps lie between two looks."""
    model, data = linear
    threat, cpu, clock, heard = Threat("linf", 1e-4), torch.device("cpu"), [0.0], []

    class Ticking(type(make("pgd", threat, {}))):
        def step(self, state, oracle):
            clock[0] += 1.0
            return super().step(state, oracle)

    class Listening(Pace):
        def saw(self, gradients, rows, seconds):
            heard.append(seconds)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    attack = Ticking(make("pgd", threat, {"steps": 8}).config, threat)
    oracle, pace = Oracle(model, threat), Listening(cpu, data.shape, len(data))
    clean = model(data.images).detach()
    search = Search(attack, oracle, data, clean, seed=0, name="pgd", pace=pace, device=cpu)
    search.look_every = 4
    search.run(torch.arange(len(data)), lambda found: None)
    assert heard == [1.0, 1.0]
