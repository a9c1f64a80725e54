"""Statistics of two fractions that are measured on the same things."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm, ttest_1samp

from advkit.core.stats import mcnemar, mean_interval, paired_difference


def tables(count: int, seed: int) -> list[tuple[int, int, int]]:
    """Random numbers of images that only the first, and only the second, classifies, and of all images."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n = int(draw.integers(1, 2000))
        first, second, _ = draw.multinomial(n, draw.dirichlet([0.3, 0.3, 1]))
        found.append((int(first), int(second), n))
    return found


def test_mcnemar_is_scipy_s_exact_test_on_1000_tables():
    for first, second, _ in tables(1000, 0):
        both = first + second
        wanted = binomtest(first, both, 0.5).pvalue if both else 1.0
        assert mcnemar(first, second) == pytest.approx(wanted, rel=1e-9)
        assert mcnemar(first, second) == mcnemar(second, first) <= 1


def score(first: int, second: int, n: int, difference: float) -> float:
    """The score statistic, with the shares of largest likelihood found by a search instead of a formula."""
    rest = n - first - second

    def unlikely(share: float) -> float:  # of what only the first classifies
        cells = ((first, share), (second, share + difference), (rest, 1 - 2 * share - difference))
        return -sum(count * np.log(max(chance, 1e-300)) for count, chance in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-14}).x
    share = min((low, share, high), key=unlikely)
    variance = 2 * share + difference - difference**2
    return (second - first - n * difference) / np.sqrt(n * variance)


def _excess(difference: float, first: int, second: int, n: int, z: float) -> float:
    return score(first, second, n, difference) - z


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_inverts_the_score_test(confidence):
    z = norm.ppf(0.5 + confidence / 2)
    for first, second, n in [(30, 5, 1000), (3, 9, 20), (0, 4, 60), (7, 0, 12), (1, 1, 9), (0, 0, 50)]:
        low, high = paired_difference(first, second, n, confidence)
        middle = (second - first) / n
        for end, sign, far in ((low, 1, -1 + 1e-9), (high, -1, 1 - 1e-9)):
            wanted = brentq(_excess, middle - sign * 1e-6, far, (first, second, n, sign * z))
            assert end == pytest.approx(wanted, abs=2e-5)


def test_limits_and_symmetry_on_1000_tables():
    for first, second, n in tables(1000, 1):
        low, high = paired_difference(first, second, n)
        assert -1 <= low < (second - first) / n + 1e-12 and (second - first) / n - 1e-12 < high <= 1
        assert low < high
        other = paired_difference(second, first, n)
        assert (-other.high, -other.low) == pytest.approx((low, high), abs=1e-12)
    assert paired_difference(30, 5, 1000) == paired_difference(30, 5, 1000, 0.95)


@pytest.mark.parametrize(
    ("n", "first", "second"),
    [(20, 0.1, 0.1), (50, 0.1, 0.1), (200, 0.3, 0.0), (100, 0.01, 0.3), (1000, 0.025, 0.025)],
)
def test_coverage(n, first, second):
    draws = np.random.default_rng(5).multinomial(n, [first, second, 1 - first - second], 2000)
    counted = {}
    for a, b, _ in draws.tolist():
        counted[a, b] = counted.get((a, b), 0) + 1
    ends = {key: paired_difference(*key, n) for key in counted}
    above = sum(many for key, many in counted.items() if ends[key].low > second - first)
    below = sum(many for key, many in counted.items() if ends[key].high < second - first)
    assert max(above, below) <= 0.035 * 2000 and above + below <= 0.06 * 2000


@pytest.mark.parametrize(("low", "high", "shift"), [(0.0, 1.0, 0.0), (-1.0, 1.0, 0.05)])
def test_mean_interval_is_student_s_of_two_more_values(low, high, shift):
    draw = np.random.default_rng(3)
    for n in (1, 2, 7, 400):
        values = np.clip(draw.beta(4, 2, n) * (high - low) + low + shift, low, high)
        found = mean_interval(values.tolist(), low, high)
        wanted = ttest_1samp([*values, low, high], 0.0)
        limits = wanted.confidence_interval(0.95)
        assert found.mean == pytest.approx(values.mean())
        assert found.p_value == pytest.approx(wanted.pvalue)
        assert found.interval == pytest.approx((max(low, limits.low), min(high, limits.high)))
        wide = ttest_1samp([*values, low, high], 0.0).confidence_interval(0.99)
        assert mean_interval(values.tolist(), low, high, 0.99).interval.low == pytest.approx(
            max(low, wide.low)
        )


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.97])
def test_coverage_of_mean_interval(mean):
    """Shares of few answers that belong together, as of an image under corruptions."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        values = draw.binomial(5, draw.beta(mean, 1 - mean, 60)) / 5
        low, high = mean_interval(values.tolist(), 0.0, 1.0).interval
        covered += low <= mean <= high
    assert covered >= 0.92 * 400
