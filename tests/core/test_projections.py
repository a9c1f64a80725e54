"""Projections beside a general solver and brute force: pixels at the edges, points far outside."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from advkit.core import l1_ball, rng, water_filling
from advkit.core.levels import are_levels, round_inside
from advkit.core.threat import Threat
from advkit.core.water_filling import level

EPS = {"linf": 0.2, "l2": 0.6, "l1": 1.0, "l0": 2}
ROWS = 4
few = settings(max_examples=15)
seeds = st.integers(0, 10_000)
reach = st.sampled_from([0.01, 0.2, 1.0, 4.0, 30.0])


def case(seed, far, shape=(1, 2, 3)):
    """(originals of which a third of the pixels are black or white, points around them)."""
    ids = torch.arange(ROWS)
    x0 = (1.5 * rng.uniform(rng.keys(seed, "x0", ids), shape) - 0.25).clamp(0, 1)
    return x0, x0 + far * rng.normal(rng.keys(seed, "x", ids), shape)


def solved(norm, eps, x, x0):
    """The nearest allowed point, by a solver that knows nothing of projections (float64, one row)."""
    sign, low, high = np.sign(x - x0), -x0, 1 - x0
    if norm == "linf":
        low, high = np.maximum(low, -eps), np.minimum(high, eps)
    if norm == "l0":
        boxed = np.clip(x, 0, 1)
        choices = [np.isin(range(len(x)), chosen) for chosen in combinations(range(len(x)), int(eps))]
        return min((np.where(mask, boxed, x0) for mask in choices), key=lambda p: ((p - x) ** 2).sum())
    if norm == "l1":  # no entry moves away from x, so that sizes are linear
        low, high = np.where(sign < 0, low, 0), np.where(sign > 0, high, 0)
    budget = {"l2": lambda d: eps**2 - d @ d, "l1": lambda d: eps - sign @ d}.get(norm)
    scale = 1 + abs(x - x0).max()
    found = minimize(
        lambda d: ((d - (x - x0)) ** 2).sum() / scale**2,
        np.zeros_like(x),
        jac=lambda d: 2 * (d - (x - x0)) / scale**2,
        bounds=np.stack([low, high], 1),
        constraints=[{"type": "ineq", "fun": budget}] if budget else [],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return x0 + found.x


@pytest.mark.parametrize("norm", EPS)
@given(seed=seeds, far=reach)
@few
def test_nearest_is_what_a_general_solver_finds(norm, seed, far):
    threat = Threat(norm, EPS[norm])
    x0, x = case(seed, far)
    exact = threat.nearest(x, x0)
    assert threat.contains(exact, x0).all() and (threat.distance(exact, x0) <= EPS[norm] + 1e-7).all()
    for ours, *row in zip(*(t.flatten(1).double().numpy() for t in (exact, x, x0)), strict=True):
        assert ours == pytest.approx(solved(norm, EPS[norm], *row), abs=3e-4)
    assert torch.allclose(threat.nearest(exact, x0), exact, atol=1e-6)


@pytest.mark.parametrize("norm", EPS)
@given(seed=seeds, far=reach)
@few
def test_projection_is_the_nearest_point_or_the_clamped_one_of_the_ball(norm, seed, far):
    threat = Threat(norm, EPS[norm])
    x0, x = case(seed, far, (3, 4, 4))
    given_x = x.clone()
    once = threat.project(x, x0)
    assert torch.equal(x, given_x) and threat.contains(once, x0).all()
    if norm == "l2":
        share = (EPS["l2"] / (x - x0).flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
        assert torch.allclose(once, (x0 + share * (x - x0)).clamp(0, 1), atol=1e-6)
    else:
        assert torch.equal(once, threat.nearest(x, x0))
    assert torch.allclose(threat.project(once, x0), once, atol=2e-6)
    last = threat.project(x.to(memory_format=torch.channels_last), x0)
    assert torch.allclose(last, once, atol=1e-6)
    allowed = x0 + 0.9 * (threat.sample(x0, rng.keys(seed, "allowed", torch.arange(ROWS))) - x0)
    for moved in (threat.project, threat.nearest):
        assert torch.allclose(moved(allowed, x0), allowed, atol=1e-6)
    assert threat.project_(x, x0) is x and torch.equal(x, once)


@pytest.mark.parametrize("norm", EPS)
@given(seed=seeds, far=reach)
@few
def test_rounded_images_have_the_nearest_levels_that_are_inside_or_those_toward_the_original(norm, seed, far):
    threat = Threat(norm, (5 + 0.3 * (seed % 2)) / 255 if norm == "linf" else EPS[norm])
    x0, x = case(seed, far)
    x0 = (x0 * 255).round() / 255
    x = threat.project(x, x0)
    rounded = round_inside(x, x0, threat)
    levels, exact, own = ((image * 255).double().numpy() for image in (rounded, x, x0))
    assert are_levels(rounded) and threat.contains(rounded, x0).all()
    assert torch.equal(round_inside(x0, x0, threat), x0)
    nearest = exact.round()
    toward = np.where(exact > own, np.floor(exact + 1e-4), np.ceil(exact - 1e-4))
    if norm == "linf":
        inside = np.abs(nearest - own) < 5.31
    else:
        inside = threat.contains(torch.tensor(nearest / 255).float(), x0).numpy()[:, None, None, None]
    assert np.abs(levels - np.where(inside, nearest, toward)).max() < 1e-3


def test_l0_budgets_may_exceed_the_image():
    x0, x = case(0, 1.0)
    assert torch.allclose(Threat("l0", 50).project(x, x0), x.clamp(0, 1))


@given(seed=seeds, far=reach)
@few
def test_l1_projection_takes_a_radius_for_each_row(seed, far):
    x0, x = case(seed, far)
    radius = 0.01 + 2 * rng.uniform(rng.keys(seed, "radius", torch.arange(ROWS)), ())
    each = [Threat("l1", float(r)).project(x[[i]], x0[[i]]) for i, r in enumerate(radius)]
    assert torch.allclose(l1_ball.project_(x.clone(), x0, radius), torch.cat(each), atol=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("eps", [0.5, 3.0, 12.0, 100.0])
def test_many_rounded_changes_stay_inside_the_l1_ball_and_soon_reach_its_edge(size, eps, monkeypatch):
    monkeypatch.setattr(l1_ball, "ROUNDS", 24 if size > 1 else 12)
    x0 = rng.uniform(torch.arange(2), (3, 40, 40)).round()
    x = x0 + size * rng.normal(torch.arange(2) + 9, (3, 40, 40))
    model = Threat("l1", eps)
    projected = model.project(x, x0)
    assert model.contains(projected, x0).all() and (model.distance(projected, x0) <= eps).all()
    most = model.distance(x.clamp(0, 1), x0).clamp(max=eps)
    assert (model.distance(projected, x0) > (0.98 if size > 1 else 0.9999) * most).all()


@given(seed=seeds, wide=st.integers(1, 40), tasks=st.integers(1, 3))
@few
def test_vessels_hold_what_is_poured_in(seed, wide, tasks):
    key = rng.keys(seed, "vessels", torch.arange(ROWS))
    width = rng.uniform(key, (wide,)) * (rng.uniform(key + 1, (wide,)) > 0.2)
    height = (rng.uniform(key + 2, (tasks, wide)) ** 3 * 5).transpose(0, 1).clone()
    height[:, :, 0] = 0  # a vessel with no room
    whole = (width * height).sum(-1)
    share = rng.uniform(key + 3, (tasks,)).T
    t = level(width, height, share * whole)
    held = (width * torch.minimum(height, t[..., None])).sum(-1)
    assert torch.allclose(held, share * whole, rtol=1e-4)
    assert (t <= height.amax(-1) * (1 + 1e-4)).all()
    with pytest.MonkeyPatch.context() as patch:  # of too few rounds it is lower, never higher
        patch.setattr(water_filling, "ROUNDS", 1)
        assert (level(width, height, share * whole) <= t * (1 + 1e-6)).all()
    assert (level(width, height, torch.zeros_like(share)) == 0).all()
    assert (level(width, height, whole + 1) > 1e6).all()
