"""What votes prove, beside scipy's own tests."""

import pytest
from scipy.stats import binomtest, norm

from advkit.errors import ConfigError
from advkit.smoothing.statistics import certified_radius, chance, least_share, reach, refuse_too_few


@pytest.mark.parametrize(
    ("votes", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (999, 1000), (98_765, 100_000)]
)
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_least_share_is_the_one_sided_exact_bound(votes, n, alpha):
    wanted = binomtest(votes, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    assert least_share(votes, n, alpha) == pytest.approx(wanted, rel=1e-9)
    if votes:  # at the bound itself, so many votes or more have just the probability alpha
        p = binomtest(votes, n, least_share(votes, n, alpha), alternative="greater").pvalue
        assert p == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize(("first", "second"), [(1, 0), (5, 5), (6, 5), (60, 40), (90, 10), (600, 399)])
def test_a_lead_is_judged_by_the_two_sided_binomial_test(first, second):
    assert chance(first, second) == pytest.approx(binomtest(first, first + second, 0.5).pvalue, rel=1e-9)


def test_the_radius_is_sigma_times_the_quantile_and_never_negative():
    assert certified_radius(0.9, 0.5) == pytest.approx(0.5 * norm.ppf(0.9))
    assert certified_radius(0.5, 0.5) == certified_radius(0.2, 0.5) == certified_radius(0.0, 0.5) == 0
    assert reach(100_000, 0.001, 0.5) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 100_000)))
    assert reach(100_000, 0.001, 0.5) == pytest.approx(1.905, abs=5e-3)


def test_too_few_samples_are_refused_with_the_number_that_does():
    with pytest.raises(ConfigError, match="take 10 samples or more"):
        refuse_too_few(9, 0.001, 0.5)
    refuse_too_few(10, 0.001, 0.5)
    assert reach(10, 0.001, 0.5) > 0
