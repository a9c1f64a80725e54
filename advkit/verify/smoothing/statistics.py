"""Statistics of votes: a class's lower confidence bound, its certified radius, and the test of a lead.

Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
section 3. The functions are those of ``scipy.special``, since ``scipy.stats`` takes a second to load.
"""

from __future__ import annotations

import math

from advkit.core.errors import ConfigError
from advkit.core.stats import lower_limit


def least_share(votes: int, samples: int, alpha: float) -> float:
    """Lower confidence bound of a class's probability at level 1 - ``alpha`` (Clopper and Pearson)."""
    return lower_limit(votes, samples, alpha)


def certified_radius(share: float, sigma: float) -> float:
    """The l2 radius within which a class whose probability is at least ``share`` stays the most probable
    (theorem 1, with all the rest for the next class); 0 for shares up to a half."""
    from scipy.special import ndtri

    return max(0.0, sigma * float(ndtri(share)))


def reach(samples: int, alpha: float, sigma: float) -> float:
    """The largest radius that ``samples`` votes can certify, if all agree."""
    return certified_radius(math.pow(alpha, 1 / samples), sigma)


def chance(first: int, second: int) -> float:
    """The p-value of the two most frequent classes being equally probable: a two-sided binomial test of
    ``first`` >= ``second`` votes."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(second, first + second, 0.5)))


def refuse_too_few(samples: int, alpha: float, sigma: float) -> None:
    """Raises a `ConfigError` if so few samples cannot certify any radius."""
    if reach(samples, alpha, sigma) > 0:
        return
    least = math.floor(-math.log2(alpha)) + 1
    raise ConfigError(
        f"{samples} samples certify no radius at alpha {alpha:g} even if all agree: it is at most "
        f"sigma * Phi^-1(alpha^(1/samples)); take {least} samples or more, and 100,000 for a radius "
        f"of up to {reach(100_000, alpha, sigma):.3g}"
    )
