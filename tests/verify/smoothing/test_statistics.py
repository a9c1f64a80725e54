"""What votes prove, beside scipy's own tests."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from advkit.core.errors import ConfigError
from advkit.verify.smoothing.statistics import certified_radius, chance, least_share, reach, refuse_too_few

CASES = settings(max_examples=60)
VOTES = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n) | st.just(n), st.just(n)))
SIGMA = st.floats(0.01, 3)
ALPHA = st.floats(0.05, 0.95) | st.floats(-30, -1).map(lambda power: 10.0**power)


@CASES
@given(VOTES, ALPHA, SIGMA)
def test_the_least_share_is_the_one_sided_exact_bound_and_gives_the_radius(counts, alpha, sigma):
    (votes, n), share = counts, least_share(*counts, alpha)
    # With the share, so many votes or more have just the probability alpha.
    assert share == 0 if votes == 0 else binom.sf(votes - 1, n, share) == pytest.approx(alpha, rel=1e-6)
    assert certified_radius(share, sigma) == pytest.approx(sigma * max(0, norm.ppf(share)), rel=1e-12)
    most = certified_radius(least_share(n, n, alpha), sigma)
    assert most >= certified_radius(share, sigma) and reach(n, alpha, sigma) == pytest.approx(most, abs=1e-9)


def test_shares_up_to_a_half_certify_nothing_and_the_paper_s_reach_is_found():
    assert [certified_radius(share, 0.5) for share in (0, 0.2, 0.5)] == [0, 0, 0]
    assert reach(100_000, 0.001, 0.5) == pytest.approx(1.905, abs=5e-3)


@CASES
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_lead_is_judged_by_the_two_sided_binomial_test(one, other):
    wanted = binomtest(one, max(one + other, 1), 0.5).pvalue
    assert chance(max(one, other), min(one, other)) == pytest.approx(wanted, rel=1e-7)


@CASES
@given(ALPHA | st.integers(1, 60).map(lambda power: 0.5**power), SIGMA)
def test_too_few_samples_are_refused_with_the_number_that_does(alpha, sigma):
    with pytest.raises(ConfigError) as refused:
        refuse_too_few(1, min(alpha, 0.5), sigma)
    least, most, radius = re.findall(r"take (\d+) .*?([\d,]+) for .* ([\d.]+)$", str(refused.value))[0]
    assert float(radius) == pytest.approx(reach(int(most.replace(",", "")), min(alpha, 0.5), sigma), rel=5e-3)
    refuse_too_few(int(least), min(alpha, 0.5), sigma)
    for fewer in {1, int(least) - 1}:
        with pytest.raises(ConfigError):
            refuse_too_few(fewer, min(alpha, 0.5), sigma)
