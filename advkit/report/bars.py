"""Shares with their intervals as bars, for pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from advkit.core.stats import Interval, accuracy, clopper_pearson


@dataclass(frozen=True)
class Bar:
    """A share of images, and its exact 95 % interval."""

    label: str
    count: int
    n: int
    """Of so many, at least 1."""
    certain: int = 0
    """So many of ``count`` are proved."""

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.count / self.n

    @property
    def proved(self) -> float:
        """The share that is certain."""
        return self.certain / self.n

    @property
    def interval(self) -> Interval:
        """Clopper and Pearson's."""
        return clopper_pearson(self.count, self.n)

    @property
    def text(self) -> str:
        """The share and its interval in words, with what is proved of it."""
        return accuracy(self.count, self.n) + f", {100 * self.proved:.1f} % proved" * (self.certain > 0)


@dataclass(frozen=True)
class Bars:
    """Bars under a heading."""

    title: str
    rows: tuple[Bar, ...]

    @classmethod
    def of(cls, title: str, rows: Iterable[tuple[str, int, int]]) -> Bars:
        """From labels, counts and numbers of images; rows of no images are left out."""
        return cls(title, tuple(Bar(*row) for row in rows if row[2]))
