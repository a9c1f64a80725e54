import io
import math
import re
from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom, binomtest

from advkit.core import images
from advkit.core.stats import accuracy, bracketed, clopper_pearson, median_ranks, most_successes

CASES = settings(max_examples=60)
COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
COUNTS |= COUNTS.map(lambda counts: (counts[1], counts[1]))


@CASES
@given(COUNTS, st.floats(0.01, 0.9999))
def test_the_interval_is_scipy_s_and_percentages_tell_it(counts, confidence):
    (k, n), test = counts, binomtest(*counts)
    low, high = clopper_pearson(k, n, confidence)
    wanted = test.proportion_ci(confidence, method="exact")  # found by a search that ends early
    assert (low, high) == pytest.approx((wanted.low, wanted.high), rel=1e-5, abs=1e-9)
    assert low == 0 if k == 0 else binom.sf(k - 1, n, low) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    assert high == 1 if k == n else binom.cdf(k, n, high) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    assert clopper_pearson(k, n) == clopper_pearson(k, n, 0.95)
    told = [float(number) for number in re.findall(r"\d+\.\d", accuracy(k, n))]
    assert told == pytest.approx([100 * k / n, *(100 * end for end in clopper_pearson(k, n))], abs=0.0501)
    some = bracketed(k // 3, k, n)
    if k:
        told = [float(number) for number in re.findall(r"\d+\.\d", some)]
        assert told == pytest.approx([100 * one / n for one in (k // 3, k, k - k // 3)], abs=0.0501)
    else:
        assert some == f"robust accuracy: exactly {accuracy(0, n)}"


def chance(most, bad, sample, population):
    """Of at most so many bad ones in a sample."""
    ways = sum(comb(bad, k) * comb(population - bad, sample - k) for k in range(most + 1))
    return ways / comb(population, sample)


@pytest.mark.parametrize("population", [1, 7, 40])
def test_the_bound_is_the_largest_number_that_is_not_excluded(population):
    for sample in range(1, population + 1):
        for hits in range(min(sample, 4) + 1):
            possible = range(hits, population - sample + hits + 1)
            kept = [bad for bad in possible if chance(hits, bad, sample, population) > 0.05]
            most = most_successes(hits, sample, population)
            assert most == max(kept) and (most == hits or sample < population)
            assert most <= clopper_pearson(hits, sample, 0.9).high * population + 1e-9
    assert most_successes(0, 0, 5) == 5


@pytest.mark.parametrize("bad", [0, 1, 9, 30])
def test_it_covers_nineteen_in_twenty_times(bad):
    draws = (torch.randperm(60, generator=torch.Generator().manual_seed(seed))[:14] for seed in range(200))
    good = sum(most_successes(int((drawn < bad).sum()), 14, 60) >= bad for drawn in draws)
    assert good >= 184  # 190 are expected at least, and fewer than this once in 10,000


def test_of_nothing_everything_is_possible():
    assert clopper_pearson(0, 0) == (0, 1) and median_ranks(0) == (-1, 0)
    assert accuracy(181, 200) == "90.5 % [85.6, 94.2]"


@CASES
@given(st.integers(1, 300), st.sampled_from(["0.6", "0.8", "0.95", "0.99"]))
def test_the_ranks_enclose_the_median_with_the_confidence_and_fewer_would_not(n, confidence):
    below = np.cumsum([Fraction(math.comb(n, k), 2**n) for k in range(n + 1)])  # that so many are below it
    low, high = median_ranks(n, float(confidence))
    assert high == n - 1 - low and -1 <= low < high
    assert 1 - 2 * (below[low] if low >= 0 else 0) >= Fraction(confidence)
    assert low + 1 > high - 1 or 1 - 2 * below[low + 1] < Fraction(confidence)
    assert median_ranks(n) == median_ranks(n, 0.95)


def test_grid_puts_images_where_they_belong():
    pictures = torch.stack([torch.full((1, 2, 3), value) for value in (0.0, 0.5, 1.0)])
    sheet = images.grid(pictures, columns=2)
    assert sheet.shape == (1, 7, 9)
    assert sheet[0, 1:3, 1:4].eq(0).all() and sheet[0, 1:3, 5:8].eq(128).all()
    assert sheet[0, 4:6, 1:4].eq(255).all() and sheet[0, 0].eq(255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_read_back(channels):
    image = torch.arange(channels * 20, dtype=torch.uint8).view(channels, 4, 5)
    read = np.asarray(Image.open(io.BytesIO(images.png_bytes(image, zoom=3))))
    assert read.shape[:2] == (12, 15)
    assert np.array_equal(read.reshape(12, 15, channels)[::3, ::3], image.permute(1, 2, 0).numpy())
