"""Evaluations in threads, and what the rest of the process notices of them: nothing."""

import copy
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import advkit
from advkit.core import device, process, rng
from advkit.core.pytorch import float32_settings
from advkit.integrations.generators import seeded
from advkit.models.model import evaluation_mode
from advkit.models.trace import Tracer
from advkit.verify.bounds.read import read


class Bystander(nn.Module):
    """A module that another thread calls again and again, with what a tracer would not give it."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        assert type(x) is torch.Tensor and type(self.scale) is nn.Parameter
        return self.layer(x) * self.scale if bool(x.sum() > 0) else x


@pytest.fixture
def bystander():
    """Is called by a thread while the test runs, and counts its calls; it must not raise."""
    module, over, calls, faults = Bystander(), threading.Event(), [], []
    expected = module(torch.ones(1, 4))

    def call():
        while not over.is_set():
            try:
                assert torch.equal(module(torch.ones(1, 4)), expected)
                calls.append(1)
            except Exception as fault:
                faults.append(fault)

    thread = threading.Thread(target=call)
    thread.start()
    yield calls
    over.set()
    thread.join()
    assert faults == [] and len(calls) > 3


def test_eight_threads_find_what_one_finds_and_nobody_notices(judged, bystander):
    model, data = judged
    model = copy.deepcopy(model).train()
    model.network[0].eval() if isinstance(model.network, nn.Sequential) else None
    modes = [module.training for module in model.modules()]
    before, flags = torch.get_rng_state(), [each.value for each in float32_settings()]

    def evaluate(number):
        return advkit.evaluate(
            model,
            data,
            advkit.Threat("linf", 0.03),
            "pgd",
            parameters={"pgd": {"steps": 4}},
            n=12 + number % 2,
        ).verdicts

    alone = [evaluate(0), evaluate(1)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(evaluate, range(16)))
    assert together == alone * 8
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert [each.value for each in float32_settings()] == flags


def test_tracing_in_threads_leaves_others_alone(judged, bystander):
    model, _ = judged
    with ThreadPoolExecutor(4) as pool:
        graphs = list(pool.map(lambda _: read(model), range(12)))
    assert len({len(graph.nodes) for graph in graphs}) == 1
    assert "advkit" not in nn.Module.__call__.__module__


class Odd(nn.Module):
    """A layer twice, a module under two names, a parameter and a buffer of its own, and a weight in place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again, self.none = self.first, None
        self.inner = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
        self.scale, self.calls = nn.Parameter(torch.full((3,), 2.0)), 0
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.inner(self.first(x)) * self.scale.exp() + self.again(self.shift)


def test_a_traced_network_is_the_same_function_of_the_same_tensors():
    network = Odd().eval()
    kinds = [type(module) for module in network.modules()]
    traced = Tracer().traced(network)
    x = torch.linspace(-1, 1, 6).view(2, 3)
    assert network.calls == 0 and torch.equal(traced(x), network(x))
    assert {id(p) for p in traced.parameters()} == {id(p) for p in network.parameters()}
    with torch.no_grad():
        network.scale.add_(1)
        network.inner[1].weight.mul_(3)
        network.shift.mul_(2)
    assert torch.equal(traced(x), network(x))
    assert [type(module) for module in network.modules()] == kinds
    assert {type(module) for module in traced.children()} <= {nn.Linear, nn.Sequential, nn.Module}
    with pytest.raises(AssertionError):  # it is given a symbol
        Tracer().traced(Bystander())


def test_the_last_to_leave_puts_it_back():
    done, value = [], {"now": 1}

    def change():
        before, value["now"] = value["now"], 2
        done.append("changed")
        return before

    setting = process.Shared(change, lambda before: value.update(now=before))
    with setting:
        with setting:
            assert value["now"] == 2
        assert value["now"] == 2 and done == ["changed"]
    assert value["now"] == 1
    with pytest.raises(KeyError), setting:
        raise KeyError
    assert value["now"] == 1 and done == ["changed"] * 2


class Turns:
    """Two threads that enter and leave something in a given order."""

    def __init__(self, *contexts):
        self.pools = [ThreadPoolExecutor(1) for _ in contexts]
        self.contexts = contexts

    def enter(self, number):
        self.pools[number].submit(self.contexts[number].__enter__).result()

    def leave(self, number):
        self.pools[number].submit(self.contexts[number].__exit__, None, None, None).result()


def test_modes_and_generators_are_put_back_in_any_order():
    network = nn.Sequential(nn.Dropout(), nn.LSTM(2, 2, 2, dropout=0.5), nn.Sequential(nn.Dropout().eval()))
    modes = [module.training for module in network.modules()]
    turns = Turns(evaluation_mode(network), evaluation_mode(network))
    turns.enter(0), turns.enter(1), turns.leave(0)
    assert not network.training and not network[0].training and network[1].dropout == 0
    turns.leave(1)
    assert [module.training for module in network.modules()] == modes and network[1].dropout == 0.5
    before = torch.get_rng_state()
    turns = Turns(rng.scope("cpu", 0, "a"), rng.scope("cpu", 1, "b"))
    turns.enter(0), turns.enter(1), turns.leave(0)
    assert not torch.equal(torch.get_rng_state(), before)
    turns.leave(1)
    assert torch.equal(torch.get_rng_state(), before)
    with rng.scope("cpu", 0, "a"):
        torch.rand(3)
        inside = torch.get_rng_state()
        with rng.scope("cpu", 1, "b"):
            torch.rand(3)
        assert torch.equal(torch.get_rng_state(), inside)
    assert torch.equal(torch.get_rng_state(), before)
    assert device.exact_float32() is device.exact_float32()


def test_random_states_of_other_threads_are_real():
    real, state, python = np.random.RandomState, np.random.get_state()[1].copy(), random.getstate()
    mine, others = [], []

    def other():
        thing = np.random.RandomState()
        others.append((type(thing), isinstance(real(1), np.random.RandomState), thing.randint(2**30)))

    for _ in range(2):
        with seeded(torch.device("cpu"), 3):
            mine.append((np.random.RandomState().randint(2**30), np.random.rand(), random.random()))
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert np.random.RandomState(5).randint(2**30) == real(5).randint(2**30)
    assert mine[0] == mine[1] and np.random.RandomState is real
    assert others[0][:2] == others[1][:2] == (real, True) and others[0][2] != others[1][2]
    assert (np.random.get_state()[1] == state).all() and random.getstate() == python
