import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit import l1_ball, rng
from advkit.errors import ConfigError
from advkit.threat import Threat, threat

NORMS = [("linf", 0.1), ("l2", 0.7), ("l1", 2.0), ("l0", 3)]


@pytest.mark.parametrize(("norm", "eps"), NORMS)
@given(seed=st.integers(0, 10_000), far=st.floats(0.01, 5))
@settings(max_examples=40, deadline=None)
def test_projection_is_inside_and_idempotent(norm, eps, seed, far):
    ids = torch.arange(4)
    x0 = rng.uniform(rng.keys(seed, "x0", ids), (1, 5, 5))
    x = x0 + far * rng.normal(rng.keys(seed, "x", ids), (1, 5, 5))
    model = Threat(norm, eps)
    once = model.project(x.clone(), x0)
    assert model.contains(once, x0).all()
    assert torch.allclose(model.project(once.clone(), x0), once, atol=2e-6)
    assert torch.allclose(model.project(x0.clone(), x0), x0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l1", 2.0), ("l0", 3)])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_projection_is_the_nearest_point(norm, eps, seed):
    """No random point of the set is nearer (linf, l1, l0; the l2 one is customary, not nearest)."""
    one = torch.zeros(1, dtype=torch.int64)
    x0 = rng.uniform(rng.keys(seed, "x0", one), (1, 3, 3))
    x = x0 + 0.8 * rng.normal(rng.keys(seed, "x", one), (1, 3, 3))
    model = Threat(norm, eps)
    projected = model.project(x.clone(), x0)
    others = model.project(
        projected + 0.05 * rng.normal(torch.arange(200) + seed, (1, 3, 3)), x0.expand(200, -1, -1, -1)
    )
    nearest = (others - x).flatten(1).norm(dim=1).min()
    assert (projected - x).norm() <= nearest + 1e-5


def test_l1_projection_takes_a_radius_for_each_row():
    x0 = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.9]])
    x = torch.tensor([[1.0, 0.5, 0.3], [1.0, 0.5, 0.3], [0.9, 0.5, 3.0]])
    by_hand = [[0.65, 0.5, 0.5], [1.0, 0.5, 0.3], [0.8, 0.5, 1.0]]  # threshold .35; fits; the box holds .1
    projected = l1_ball.project_(x, x0, torch.tensor([0.15, 0.7, 0.4]))
    assert torch.allclose(projected, torch.tensor(by_hand), atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_many_rounded_changes_stay_inside_the_l1_ball(size):
    x0 = rng.uniform(torch.arange(3), (3, 40, 40)).round()
    x = x0 + size * rng.normal(torch.arange(3) + 9, (3, 40, 40))
    for eps in (0.5, 3.0, 12.0, 100.0):
        model = Threat("l1", eps)
        projected = model.project(x, x0)
        assert model.contains(projected, x0).all()
        most = model.distance(x.clamp(0, 1), x0).clamp(max=eps)
        assert (model.distance(projected, x0) > 0.98 * most).all()


def test_projection_respects_the_memory_format():
    x0 = rng.uniform(torch.arange(2), (3, 4, 4))
    x = x0 + rng.normal(torch.arange(2) + 9, (3, 4, 4))
    for norm, eps in NORMS:
        model = Threat(norm, eps)
        other = model.project(x.to(memory_format=torch.channels_last), x0)
        assert torch.allclose(other, model.project(x, x0))


@pytest.mark.parametrize(("norm", "eps"), NORMS)
def test_samples_are_inside_and_use_the_budget(norm, eps):
    x0 = torch.full((300, 1, 5, 5), 0.5)
    model = Threat(norm, eps if norm != "l2" else 0.4)
    x = model.sample(x0, rng.keys(0, "s", torch.arange(300)))
    distance = model.distance(x, x0)
    assert model.contains(x, x0).all()
    assert distance.max() > 0.9 * model.eps
    if norm == "l2":  # uniform in a ball of 25 dimensions: the mean radius is 25/26 of eps
        assert abs(float(distance.mean()) / 0.4 - 25 / 26) < 0.01


def test_nothing_outside_counts_as_inside():
    x0 = torch.full((1, 1, 2, 2), 0.9)
    assert not Threat("linf", 0.5).contains(x0 + 0.2, x0).any()  # beyond white
    assert not Threat("linf", 0.05).contains(x0 - 0.1, x0).any()
    assert not Threat("linf", 0.5).contains(torch.full_like(x0, torch.nan), x0).any()


def test_faults_are_told_in_one_sentence():
    with pytest.raises(ConfigError, match="8/255"):
        threat("linf", 8)
    with pytest.raises(ConfigError, match="linf"):
        threat("l3", 0.1)
    with pytest.raises(ConfigError, match="greater than 0"):
        threat("l2", 0)
    with pytest.raises(ConfigError, match="fraction"):
        threat("linf", "8/0")
    assert threat("linf", "8/255").eps == pytest.approx(8 / 255)
