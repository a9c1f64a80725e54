"""Numbers of a counter, beside a reference in plain integers and scipy's tests of chance."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from advkit.core import rng

GOLDEN, MIX1, MIX2, BELOW = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64
SEED, ID, HIGH = st.integers(0, 2**63), st.integers(-(2**62), 2**62), st.integers(1, 2**30)
SHAPE = st.sampled_from([(), (3,), (2, 35)])


def mix(value):
    """SplitMix64's finaliser, of numbers without a sign."""
    value = (value ^ (value >> 30)) * MIX1 % BELOW
    value = (value ^ (value >> 27)) * MIX2 % BELOW
    return value ^ (value >> 31)


def unsigned(keys):
    return keys.numpy().view(np.uint64).tolist()


@settings(max_examples=30)
@given(SEED, st.lists(ID, min_size=1, max_size=3), ID, SHAPE, HIGH)
def test_every_number_is_that_of_the_reference_alone_and_in_company(seed, ids, number, shape, high):
    n, count, sample, base = len(ids), math.prod(shape), torch.tensor(ids), rng.derive(seed, "a")
    assert base == rng.derive(seed, "a") != rng.derive(seed, "a", 1) and 0 <= base < 2**63
    wanted = [mix((mix((i * GOLDEN + base) % BELOW) + number * MIX1) % BELOW) for i in ids]
    key, each = rng.keys(seed, "a", sample, number), torch.full((n,), number)
    assert unsigned(key) == wanted == unsigned(rng.keys(seed, "a", sample, each))
    assert rng.keys(seed, "a", sample).equal(rng.keys(seed, "a", sample, 0))
    later = [mix((k + number * MIX2) % BELOW) for k in wanted]
    assert later == unsigned(rng.step(key, number)) == unsigned(rng.step(key, each))
    words = [[mix((k + i * GOLDEN) % BELOW) for i in range(1, 2 * count + 1)] for k in wanted]
    words = np.array(words, dtype=np.uint64)
    drawn, lane = words[:, :count], [part.reshape(n, *shape) / 2**24 for part in np.split(words >> 40, 2, 1)]
    assert all(np.array_equal(rng.uniform(key, shape, number), lane[number]) for number in (0, 1))
    assert rng.uniform(key, shape).equal(rng.uniform(key, shape, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "_AT_ONCE", 40)  # some rows at a time, or none
        assert np.array_equal(rng.uniform(key, shape), lane[0]) and len(rng.uniform(key[:0], shape)) == 0
    polar = np.sqrt(-2 * np.log1p(-lane[0])) * np.cos(2 * np.pi * lane[1])
    assert rng.normal(key, shape).numpy() == pytest.approx(polar, abs=1e-5)
    assert np.array_equal(rng.integers(key, shape, high), (drawn >> 24).reshape(n, *shape) % high)
    tossed = np.array([[int(row[i // 64]) >> i % 64 & 1 for i in range(count)] for row in words])
    assert np.array_equal(rng.signs(key, shape), 2.0 * tossed.reshape(n, *shape) - 1)


def test_known_values_stay():
    """Results recorded by one version must be found again by the next; ``words`` are SplitMix64's own."""
    assert rng.derive(0, "golden") == 6790568129067196536
    assert rng.keys(0, "golden", torch.arange(2)).tolist() == [7028484594911121439, 6262048418017246148]
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert rng.integers(torch.tensor([1234567]), (4,), 2**40).tolist() == [[word >> 24 for word in words]]
    assert rng.permutation(3, "p", 6).tolist() == rng.permutation(3, "p", 6, 0).tolist() == [0, 1, 5, 4, 3, 2]


def test_numbers_are_as_likely_as_they_should_be():
    key = rng.keys(0, "m", torch.arange(2000))
    uniform = rng.uniform(key, (100,))
    assert stats.kstest(uniform.flatten(), "uniform").pvalue > 0.01
    assert stats.kstest(rng.normal(key, (100,)).flatten(), "norm").pvalue > 0.01
    assert torch.corrcoef(uniform.T).triu(1).abs().max() < 0.12
    assert torch.corrcoef(uniform[:100]).triu(1).abs().max() < 0.5
    assert stats.chisquare(torch.bincount(rng.integers(key, (100,), 7).flatten())).pvalue > 0.01
    assert stats.binomtest(int((rng.signs(key, (100,)) > 0).sum()), 200_000).pvalue > 0.01


def test_a_permutation_has_each_place_once_and_every_order_comes():
    for n in (0, 1, 100):
        assert rng.permutation(0, "p", n).sort().values.equal(torch.arange(n))
    orders = [tuple(rng.permutation(seed, "p", 3, step).tolist()) for seed in range(60) for step in range(10)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_scope_seeds_its_device_alone_and_leaves_no_trace(device, monkeypatch):
    seeded, state, there = [], torch.get_rng_state(), torch.Generator()
    there.manual_seed(7)
    for kind in (torch.cuda, torch.mps):
        monkeypatch.setattr(kind, "manual_seed", lambda seed, kind=kind: seeded.append((kind, seed)))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "default_generators", (None, there))
    with rng.scope(device, 1, "x", 2):
        drawn = torch.rand(3)
        torch.rand(3, generator=there)
    seed = rng.derive(1, "x", 2)
    assert drawn.equal(torch.rand(3, generator=torch.Generator().manual_seed(seed)))
    assert torch.get_rng_state().equal(state)
    torch.default_generator.manual_seed(5)  # what was there before an earlier scope is forgotten
    state = torch.get_rng_state()
    with rng.scope("cpu", 1), rng.scope("cpu", 2):
        torch.rand(3)
    assert torch.get_rng_state().equal(state)
    assert seeded == ([] if device == "cpu" else [(getattr(torch, device), seed)])
    assert there.get_state().equal(torch.Generator().manual_seed(7).get_state()) == (device == "cuda")
