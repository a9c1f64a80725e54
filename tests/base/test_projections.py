"""Projections against independent algorithms, on hard inputs: pixels at the edges, points far outside."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit import rng
from advkit.threat import Threat
from advkit.water_filling import level

THREATS = [Threat("linf", 0.2), Threat("l2", 0.6), Threat("l1", 1.5), Threat("l0", 3)]
NAMES = [threat.norm for threat in THREATS]
ROWS = 6


def case(seed, far, shape=(1, 3, 3)):
    """(originals of which a third of the pixels are black or white, points around them)."""
    ids = torch.arange(ROWS)
    x0 = (1.5 * rng.uniform(rng.keys(seed, "x0", ids), shape) - 0.25).clamp(0, 1)
    return x0, x0 + far * rng.normal(rng.keys(seed, "x", ids), shape)


def squared(x, y):
    return (x - y).square().flatten(1).sum(1)


@pytest.mark.parametrize("threat", THREATS, ids=NAMES)
@given(seed=st.integers(0, 10_000), far=st.floats(0.01, 30))
@settings(max_examples=10, deadline=None)
def test_nearest_is_inside_and_stays_where_it_is(threat, seed, far):
    x0, x = case(seed, far)
    once = threat.nearest(x, x0)
    assert threat.contains(once, x0).all()
    assert torch.allclose(threat.nearest(once, x0), once, atol=1e-6)
    allowed = threat.sample(x0, rng.keys(seed, "allowed", torch.arange(ROWS)))
    allowed = x0 + 0.99 * (allowed - x0) if threat.norm != "l0" else allowed
    assert torch.allclose(threat.nearest(allowed, x0), allowed, atol=1e-6)


@pytest.mark.parametrize("threat", THREATS[:3], ids=NAMES[:3])
@given(seed=st.integers(0, 10_000), far=st.floats(0.05, 3))
@settings(max_examples=10, deadline=None)
def test_no_allowed_point_lies_beyond_the_nearest(threat, seed, far):
    """p is the nearest point of a convex set to x exactly if (x - p).(q - p) <= 0 for all q of the set."""
    x0, x = case(seed, far)
    p = threat.nearest(x, x0)
    outward = x - p
    candidates = [threat.sample(x0, rng.keys(seed, "q", torch.arange(ROWS), k)) for k in range(8)]
    candidates += [threat.project(p + scale * outward, x0) for scale in (0.1, 1, 10, 100)]
    for q in candidates:
        assert ((outward * (q - p)).flatten(1).sum(1) <= 2e-5 * (1 + squared(x, p))).all()


@given(seed=st.integers(0, 10_000), far=st.floats(0.05, 3))
@settings(max_examples=10, deadline=None)
def test_nearest_in_l2_is_the_limit_of_alternating_projections(seed, far):
    """Dykstra's algorithm, on the ball and the box in turn."""
    threat = Threat("l2", 0.6)
    x0, x = (t.double() for t in case(seed, far))
    point, from_ball, from_box = x, torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(400):
        change = point + from_ball - x0
        length = change.flatten(1).norm(dim=1).clamp(min=0.6)[:, None, None, None]
        on_ball = x0 + 0.6 * change / length
        from_ball = point + from_ball - on_ball
        point = (on_ball + from_box).clamp(0, 1)
        from_box = on_ball + from_box - point
    exact = threat.nearest(x.float(), x0.float())
    assert torch.allclose(exact, point.float(), atol=2e-4)
    customary = threat.project(x.float(), x0.float())
    assert (squared(exact, x) <= squared(customary, x) + 1e-5).all()


@given(seed=st.integers(0, 10_000), far=st.floats(0.05, 3))
@settings(max_examples=10, deadline=None)
def test_nearest_in_l0_is_the_best_of_all_choices(seed, far):
    x0, x = case(seed, far)
    exact = squared(Threat("l0", 3).nearest(x, x0), x)
    boxed = x.clamp(0, 1)
    for chosen in combinations(range(9), 3):
        mask = torch.zeros(9).index_fill(0, torch.tensor(chosen), 1.0).view(1, 1, 3, 3).bool()
        assert (exact <= squared(torch.where(mask, boxed, x0), x) + 1e-5).all()


def test_customary_l2_projection_can_be_farther_than_the_nearest():
    x0, x = torch.tensor([[[[0.9, 0.5]]]]), torch.tensor([[[[1.9, 0.8]]]])
    threat = Threat("l2", 0.3)
    assert squared(threat.nearest(x, x0), x) < squared(threat.project(x, x0), x) - 0.01


def test_levels_by_hand():
    """Vessels of widths 1, 2 and 3; the first is full at .5, the last at 0."""
    width, height = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 2.0, 0.0]])
    for amount, expected in [(0.0, 0.0), (0.9, 0.3), (1.5, 0.5), (2.5, 1.0), (4.5, 2.0)]:
        assert float(level(width, height, torch.tensor([amount]))) == pytest.approx(expected)
    assert float(level(width, height, torch.tensor([5.0]))) > 1e6  # more than they hold
