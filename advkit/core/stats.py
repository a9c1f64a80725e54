"""Statistics of accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval of a fraction."""

    low: float
    high: float


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact two-sided interval of a binomial fraction (Clopper and Pearson, Biometrika 1934).

    Args:
        successes: how many of ``n`` succeeded.
        n: number of trials; with none, the interval is [0, 1].
        confidence: coverage, in (0, 1).
    """
    tail = (1.0 - confidence) / 2.0
    return Interval(lower_limit(successes, n, tail), 1.0 - lower_limit(n - successes, n, tail))


def lower_limit(successes: int, n: int, tail: float) -> float:
    """The fraction with which ``successes`` of ``n`` or more have the probability ``tail``; 0 for none."""
    from scipy.special import betaincinv  # scipy.stats has it too, and takes a second to load

    return float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test: whether two fractions, measured on the same things, differ.

    Args:
        only_first: how many succeeded in the first measurement alone.
        only_second: how many in the second alone.

    Returns:
        In (0, 1]; 1 where there are none of either.

    Example:
        >>> round(mcnemar(1, 9), 4)
        0.0215
    """
    from scipy.special import bdtr

    fewer, both = sorted((only_first, only_second))[0], only_first + only_second
    return min(1.0, 2.0 * float(bdtr(fewer, both, 0.5))) if both else 1.0


def paired_difference(only_first: int, only_second: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of the second fraction minus the first, measured on the same ``n`` things.

    Tango's score interval (Statistics in Medicine 1998): all differences that the score test does not refuse.
    Simulated at n from 20 to 1,000, its coverage is 94 % or more where 95 % are asked for, and each end is
    missed in about 3 % or fewer. It needs no success in either, and never leaves [-1, 1].

    Args:
        only_first: how many succeeded in the first measurement alone.
        only_second: how many in the second alone.
        n: number of things, 1 or more.
        confidence: coverage, in (0, 1); the lower end alone misses half of what is left.

    Example:
        >>> low, high = paired_difference(30, 5, 1000)
        >>> round(low, 4), round(high, 4)
        (-0.038, -0.0143)
    """
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2.0))
    return Interval(-_most(only_second, only_first, n, z), _most(only_first, only_second, n, z))


class Mean(NamedTuple):
    """A mean with its interval, and how likely one so far from 0 is if the true one is 0."""

    mean: float
    interval: Interval
    p_value: float


def mean_interval(values: Sequence[float], low: float, high: float, confidence: float = 0.95) -> Mean:
    """Interval of the mean of what bounded values were drawn from, by Student's t.

    One value at each bound is added first, as Agresti and Caffo (The American Statistician 2000) do for
    fractions, so that equal values leave an interval, too.

    Args:
        values: independent ones, in [low, high]; at least one.
        low: least possible value.
        high: largest possible value.
        confidence: coverage, in (0, 1).

    Returns:
        The mean of the values; the interval, within the bounds; the two-sided p-value of a true mean of 0.

    Example:
        >>> low, high = mean_interval([1.0] * 100, 0.0, 1.0).interval
        >>> round(low, 4), high
        (0.9707, 1.0)
    """
    from scipy.special import stdtr, stdtrit

    more = [*values, low, high]
    n, middle = len(more), math.fsum(more) / len(more)
    error = math.sqrt(math.fsum((value - middle) ** 2 for value in more) / (n - 1) / n)
    reach = error * float(stdtrit(n - 1, 0.5 + confidence / 2.0))
    return Mean(
        math.fsum(values) / len(values),
        Interval(max(low, middle - reach), min(high, middle + reach)),
        2.0 * float(stdtr(n - 1, -abs(middle) / error)),
    )


def _most(losses: int, gains: int, n: int, z: float) -> float:
    """The largest share of gains minus losses that is not refused at ``z`` standard errors, by bisection."""
    low, high = (gains - losses) / n, 1.0
    while low < (middle := (low + high) / 2.0) < high:
        # The share of losses of largest likelihood with this difference, the root of a quadratic.
        b = (2 * n + losses - gains) * middle - gains - losses
        root = (b * b + 8 * n * losses * middle * (1.0 - middle)) ** 0.5
        variance = n * ((root - b) / (2 * n) + middle * (1.0 - middle))
        if n * middle - (gains - losses) <= z * max(variance, 0.0) ** 0.5:
            low = middle
        else:
            high = middle
    return high


def median_ranks(n: int, confidence: float = 0.95) -> tuple[int, int]:
    """Which of ``n`` values in rising order, counted from 0, enclose the median of what they were drawn from.

    The interval covers it with at least ``confidence``, whatever the distribution. With too few values there
    is no lower or no upper end: the ranks are then -1 and ``n``.
    """
    from scipy.stats import binom

    below = int(binom.ppf((1.0 - confidence) / 2.0, n, 0.5))
    return below - 1, n - below


def accuracy(correct: int, n: int) -> str:
    """``"90.5 % [85.6, 94.2]"``: the fraction with its exact 95 % interval."""
    return percent(correct / n, clopper_pearson(correct, n))


def percent(share: float, interval: tuple[float, float]) -> str:
    """``"90.5 % [85.6, 94.2]"``: a share with an interval of it."""
    low, high = interval
    return f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def bracketed(certified: int, unbroken: int, n: int) -> str:
    """The robust accuracy between what is certified and what is not broken; exact if these are the same."""
    if certified == unbroken:
        return f"robust accuracy: exactly {accuracy(certified, n)}"
    low, high, open_ = (f"{100 * k / n:.1f} %" for k in (certified, unbroken, unbroken - certified))
    return f"robust accuracy between {low} (certified) and {high} (attacked), undecided {open_}"


def most_successes(successes: int, sample: int, population: int, confidence: float = 0.95) -> int:
    """Largest number of successes in a population that a random sample of it does not exclude.

    Exact and one-sided, for a sample without replacement (hypergeometric); it is never above the upper limit
    of Clopper and Pearson times the population.

    Args:
        successes: how many of ``sample`` succeeded.
        sample: size of the uniformly random sample.
        population: size of what it was drawn from.
        confidence: with it at least, the true number is no larger.
    """
    from scipy.stats import hypergeom

    low, high = successes, population - (sample - successes)
    while low < high:  # the probability of so few falls as the number rises
        middle = (low + high + 1) // 2
        if hypergeom.cdf(successes, population, middle, sample) > 1.0 - confidence:
            low = middle
        else:
            high = middle - 1
    return low
