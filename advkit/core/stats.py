"""Statistics of accuracies."""

from __future__ import annotations

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
    low, high = clopper_pearson(correct, n)
    return f"{100 * correct / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


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
