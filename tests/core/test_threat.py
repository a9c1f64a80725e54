"""Threat models: lengths, edges, steps and draws, beside NumPy, SciPy and the closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats

from advkit.core import rng
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat, is_level, written

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def lengths(change, order):
    return np.linalg.norm(change.flatten(1).double().numpy(), order, axis=1)


@pytest.mark.parametrize("norm", ORDERS)
def test_distances_are_numpys(norm):
    x0, change = (rng.uniform(torch.arange(20) + k, (2, 3, 4)) - 0.5 for k in (0, 50))
    change[:, 1] *= change[:, 1] > 0  # some values stay
    away = Threat(norm, 1.0).distance(x0 + change, x0)
    assert away.dtype == torch.float32
    assert away.tolist() == pytest.approx(lengths(change, ORDERS[norm]).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("norm", "eps", "values"),
    [("linf", 0.25, 1), ("linf", 0.5, 8), ("l2", 0.25, 1), ("l2", 2, 16), ("l1", 0.25, 1), ("l1", 4, 8)],
)
def test_rounding_is_forgiven_by_a_millionth_of_the_budget_or_of_1_and_no_more(norm, eps, values):
    share = {"linf": 1, "l2": values**0.5, "l1": values}[norm]
    for beyond, inside in [(-0.5, True), (0.6, True), (1.4, False), (1e6, False)]:
        x = torch.full((1, 1, 1, values), (eps + beyond * 1e-6 * max(1, eps)) / share)
        assert Threat(norm, eps).contains(x.clamp(max=1), torch.zeros_like(x)).item() == inside


def test_counts_are_not_rounded():
    x0, x = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.1, 1e-9], [0.0, 1.0]]]])
    assert [Threat("l0", eps).contains(x, x0).item() for eps in (2, 3)] == [False, True]


@pytest.mark.parametrize("norm", ORDERS)
def test_what_is_outside_the_box_or_no_number_is_outside(norm):
    model = Threat.whole(norm, 8)
    x = rng.uniform(torch.arange(3), (2, 2, 2))
    assert model.contains(1 - x, x).all() and model.boxed(x.round()).all()
    for place in range(8):
        for value in (-1e-7, 1 + 2e-7, torch.nan, torch.inf):
            out = x.clone()
            out[1].view(-1)[place] = value
            assert model.boxed(out).tolist() == model.contains(out, x).tolist() == [True, False, True]


@pytest.mark.parametrize("norm", ORDERS)
def test_the_whole_box_is_the_distance_of_black_from_white(norm):
    whole = Threat.whole(norm, 12)
    assert whole.norm == norm
    assert whole.eps == pytest.approx(lengths(torch.ones(1, 12), ORDERS[norm])[0])


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_a_step_rises_by_the_dual_norm(norm, size):
    """No step of length 1 raises a linear function by more."""
    gradient = size * rng.normal(torch.arange(40), (2, 2, 3))
    gradient[0] = 0
    gradient[1, :, :, 0] = 0
    model = Threat(norm, 1.0)
    step = model.ascent(gradient)
    rise = (step * gradient).flatten(1).sum(1) / size
    dual = {"linf": 1, "l2": 2}.get(norm, np.inf)
    assert rise.tolist() == pytest.approx((lengths(gradient, dual) / size).tolist(), rel=1e-5)
    assert model.distance(step, torch.zeros_like(step)).tolist() == pytest.approx([0] + [1] * 39)
    if norm == "l0":
        assert set(step.unique().tolist()) == {-1, 0, 1}
    assert torch.equal(model.ascent_(gradient.clone()), step)


def drawn(norm, eps, x0=0.5, n=3000, size=5):
    x0 = torch.full((n, 1, 1, size), x0)
    x = Threat(norm, eps).sample(x0, rng.keys(0, "s", torch.arange(n)))
    assert Threat(norm, eps).contains(x, x0).all()
    return ((x - x0) / (1 if norm == "l0" else eps)).flatten(1).numpy()


def fits(values, law, *parameters):
    return stats.kstest(np.asarray(values).ravel(), law, parameters).pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_draws_fill_the_ball_evenly(norm):
    """The length to the power of the dimension is uniform, and single values follow their known laws."""
    change = drawn(norm, 0.4)
    assert fits(np.linalg.norm(change, ORDERS[norm], axis=1) ** 5, "uniform")
    assert abs((change > 0).mean() - 0.5) < 0.02
    assert abs(np.corrcoef(np.sign(change).T) - np.eye(5)).max() < 0.06
    assert abs(np.corrcoef(np.sign(change[:, 0]), abs(change[:, 0]))[0, 1]) < 0.05
    for value in change.T:
        if norm == "linf":
            assert fits(value, "uniform", -1, 2)
        elif norm == "l2":
            assert fits(value**2, "beta", 0.5, 3.0)  # of the 7 values of the sphere around
        else:
            assert fits(abs(value), "beta", 1, 5)


def test_draws_in_l0_change_any_values_to_any():
    for eps in (1, 2, 4):
        change = drawn("l0", eps)
        changed = change != 0
        assert (changed.sum(1) == int(eps)).all()
        assert stats.chisquare(changed.sum(0)).pvalue > 0.01
        assert fits(change[changed], "uniform", -0.5, 1)


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("x0", [0.0, 0.1, 1.0])
def test_draws_stay_in_the_box(norm, x0):
    assert abs(drawn(norm, 3 if norm == "l0" else 1.0, x0, n=100)).max() > 0.3


def test_draws_are_the_same_in_every_version():
    """Figures that were published are repeated; the numbers were written down when this was tested first."""
    key, x0 = rng.keys(3, "kept", torch.arange(1)), torch.full((1, 1, 1, 3), 0.5)
    kept = {
        "linf": [0.830923, 0.249602, 0.298724],
        "l2": [0.509568, 0.396904, 0.387634],
        "l1": [0.267556, 0.519647, 0.527099],
        "l0": [0.5, 0.852030, 0.988277],
    }
    for norm, values in kept.items():
        x = Threat(norm, 2 if norm == "l0" else 0.4).sample(x0, key)
        assert x.flatten().tolist() == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize(
    ("norm", "eps"),
    [
        *(("linf", 8), ("linf", 1.001), ("l3", 0.1), ("l2", 0), ("l1", -1), ("linf", "8/0")),
        *(("l2", "x"), ("l0", 0.1), ("l0", 5.5), (None, 1), ("l2", None), ("l2", "nan")),
    ],
)
def test_what_is_no_threat_is_refused(norm, eps):
    with pytest.raises(ConfigError):
        Threat(norm, eps)


def test_a_threat_is_understood_however_it_is_written():
    for norm in ("Linf", "LINF", "inf", np.inf, float("inf")):
        assert Threat(norm, np.float32(0.5)) == Threat("linf", 0.5)
    for norm in ("L2", 2, 2.0, np.int64(2)):
        assert Threat(norm, torch.tensor(0.5)) == Threat("l2", 0.5)
    assert Threat(0, "3") == Threat("l0", 3) and Threat(1, 7) == Threat("l1", 7)
    for given in (Threat("l2", 0.5), ("l2", 0.5), [2, "0.5"]):
        assert Threat.of(given) == Threat("l2", 0.5)
    for given in ("l2", ("l2",), ("l2", 0.5, 1), ("l3", 1), None, 0.5, {}):
        with pytest.raises(ConfigError):
            Threat.of(given)


@pytest.mark.parametrize(("norm", "most"), [("linf", 1), ("l2", 6**0.5), ("l1", 6), ("l0", 6)])
def test_a_budget_that_allows_every_image_is_refused(norm, most):
    Threat(norm, most).refuse_misfit((1, 2, 3))
    with pytest.raises(ConfigError):
        Threat(norm, most + 1).refuse_misfit((1, 2, 3))


def test_scaled_budgets_of_l0_are_whole():
    assert [Threat("l0", 5).scaled(factor).eps for factor in (0.1, 0.5, 1, 2)] == [1, 3, 5, 10]
    assert Threat("l2", 5).scaled(0.1).eps == pytest.approx(0.5)


def test_multiples_of_1_over_255_are_written_so_unless_they_are_short_decimals():
    for k in range(1, 511):
        level, short = k % 2 == 0 and k < 510, k % 51 == 0
        assert is_level(k / 510) == (level and not short)
        assert written(k / 510, "linf") == (f"{k // 2}/255" if level and not short else f"{k / 510:.4g}")
        assert written(k / 510, "l2") == f"{k / 510:.4g}" and Threat("linf", written(k / 510, "linf", 12))
    assert [is_level((8 + off) / 255) for off in (0.5e-6, 1.5e-6, -0.5e-6)] == [True, False, True]


def test_fractions_are_read_and_budgets_printed():
    assert Threat("linf", "8/255") == Threat("linf", 8 / 255) and Threat("linf", 1).eps == 1
    assert [str(Threat(*words)) for words in [("linf", "8/255"), ("l2", 0.5), ("l1", 12), ("l0", 3)]] == [
        "linf eps 0.03137", "l2 eps 0.5", "l1 eps 12", "l0 eps 3",
    ]  # fmt: skip
