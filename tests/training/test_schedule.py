import math
from statistics import fmean

import pytest

from advkit.training.schedule import factor


@pytest.mark.parametrize(("done", "wanted"), [(0, 0.04), (0.15, 0.52), (0.3, 1), (0.65, 0.5), (1, 0)])
def test_one_cycle_rises_over_three_tenths_and_falls_to_nothing(done, wanted):
    assert factor("one-cycle", round(1000 * done), 1000) == pytest.approx(wanted)
    rates = [factor("one-cycle", step, 1000) for step in range(1000)]
    assert rates[:301] == sorted(rates[:301]) and rates[300:] == sorted(rates[300:], reverse=True)
    assert fmean(rates) == pytest.approx(0.7 / 2 + 0.3 * 0.52, abs=1e-3)  # both are half a cosine


def test_cosine_and_constant_are_their_names():
    for step in range(8):
        assert factor("cosine", step, 7) == pytest.approx(math.cos(math.pi * step / 14) ** 2)
        assert factor("constant", step, 7) == 1
