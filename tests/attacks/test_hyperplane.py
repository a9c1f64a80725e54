"""Smallest changes of linear functions inside the box, against general solvers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, lsq_linear

from advkit.attacks.parts.boundary import toward
from advkit.core import rng

POINTS, ROWS, SIZE = 2, 3, 8
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def case(seed, scale):
    """(points with pixels at the edges (P, R, D), gradients with zeros (R, D), rises up to what the box
    allows (P, R))."""
    x = (1.5 * rng.uniform(rng.keys(seed, "x", torch.arange(POINTS)), (ROWS, SIZE)) - 0.25).clamp(0, 1)
    w = scale * rng.normal(rng.keys(seed, "w", torch.arange(ROWS)), (SIZE,))
    w[:, 0] = 0
    share = 1.9 * rng.uniform(rng.keys(seed, "rise", torch.arange(POINTS)), (ROWS,)) - 0.95
    up = torch.where(w > 0, w * (1 - x), -w * x).sum(2)
    down = torch.where(w > 0, w * x, w * (x - 1)).sum(2)
    return x, w, torch.where(share > 0, share * up, share * down)


def least(x, w, rise, norm):
    """The smallest norm of a change, from a general solver."""
    low, high = -x, 1 - x
    if norm == "l2":  # least squares with a heavy weight on the equation
        heavy = 1e4 / np.abs(w).max()
        system = np.vstack([np.eye(SIZE), heavy * w])
        found = lsq_linear(
            system, np.append(np.zeros(SIZE), heavy * rise), (low - 1e-9, high + 1e-9), tol=1e-14
        )
        return float(np.linalg.norm(found.x))
    unit = np.eye(SIZE)
    if norm == "linf":  # minimise t with -t <= d_i <= t
        cost, bound = np.append(np.zeros(SIZE), 1), np.ones((SIZE, 1))
    else:  # minimise sum t_i with -t_i <= d_i <= t_i
        cost, bound = np.append(np.zeros(SIZE), np.ones(SIZE)), unit
    extra = bound.shape[1]
    solved = linprog(
        cost,
        A_ub=np.block([[unit, -bound], [-unit, -bound]]),
        b_ub=np.zeros(2 * SIZE),
        A_eq=np.append(w, np.zeros(extra))[None],
        b_eq=[rise],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * extra],
    )
    return float(solved.fun)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-12, 1.0, 1e6]))
@settings(max_examples=6)
def test_is_the_smallest_change_that_gets_there(norm, seed, scale):
    x, w, rise = case(seed, scale)
    change = toward(x, w, rise, norm)
    assert ((x + change).clamp(0, 1) - (x + change)).abs().max() < 1e-6
    assert torch.allclose((change * w).sum(2) / scale, rise / scale, atol=2e-5)
    for p in range(POINTS):
        for r in range(ROWS):
            wanted = w[r].double().numpy() / scale, float(rise[p, r]) / scale
            smallest = least(x[p, r].double().numpy(), *wanted, norm)
            assert np.linalg.norm(change[p, r].numpy(), ORDER[norm]) == pytest.approx(smallest, abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_goes_as_far_as_the_box_allows(norm):
    x, w = torch.tensor([[[0.2, 0.7, 0.4, 1.0]]]), torch.tensor([[1.0, -2.0, 0.0, 3.0]])
    change = toward(x, w, torch.tensor([[100.0]]), norm)
    assert torch.allclose(x + change, torch.tensor([[[1.0, 0.0, 0.4, 1.0]]]), atol=1e-6)
    back = toward(x, w, torch.tensor([[-100.0]]), norm)
    assert torch.allclose(x + back, torch.tensor([[[0.0, 1.0, 0.4, 0.0]]]), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stays_where_nothing_is_asked_or_nothing_helps(norm):
    x, w = torch.full((1, 2, 4), 0.5), torch.stack([torch.arange(4.0), torch.zeros(4)])
    assert toward(x, w, torch.tensor([[0.0, 1.0]]), norm).abs().max() == 0
