import pytest

from advkit.training.schedule import RISE, START, factor


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    rates = [factor("one-cycle", step, 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(START) and max(rates) == pytest.approx(1) and rates[-1] < 1e-5
    assert top == pytest.approx(1000 * RISE, abs=1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_cosine_is_half_way_down_in_the_middle():
    assert factor("cosine", 0, 100) == 1
    assert factor("cosine", 50, 100) == pytest.approx(0.5)


def test_constant_is_constant():
    assert {factor("constant", step, 7) for step in range(7)} == {1.0}
