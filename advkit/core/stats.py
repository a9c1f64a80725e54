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


def bracketed(certified: int, unbroken: int, n: int) -> str:
    """The robust accuracy between what is certified and what is not broken; exact if these are the same."""
    if certified == unbroken:
        return f"robust accuracy: exactly {accuracy(certified, n)}"
    low, high, open_ = (f"{100 * k / n:.1f} %" for k in (certified, unbroken, unbroken - certified))
    return f"robust accuracy between {low} (certified) and {high} (attacked), undecided {open_}"
