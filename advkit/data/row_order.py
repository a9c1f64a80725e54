"""Whether the first rows of a data set are a sample of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def by_class(labels: Tensor) -> bool:
    """Whether the order of the rows has to do with their classes.

    So it is if neighbours share their class more often than by chance (blocks), if a class is denser in one
    part of the rows than in another (drift), or if every class is one block. The first two are tests of a
    random order; either errs in less than one of a million random orders.
    """
    n = len(labels)
    counts = labels.unique(return_counts=True)[1]
    if len(counts) < 2:
        return False
    same = int((labels[1:] == labels[:-1]).sum())
    if same and same == n - len(counts):
        return True
    chance = float((counts * (counts - 1)).sum()) / (n * (n - 1))
    expected = (n - 1) * chance
    return same > expected + 5 * math.sqrt(expected * (1 - chance)) or _drift(labels, counts) > 4


def _drift(labels: Tensor, counts: Tensor) -> float:
    """The largest distance between how many rows of a class have come and its share of the rows so far, in
    units in which a random order exceeds x with probability 2 exp(-2 x**2) (Kolmogorov and Smirnov)."""
    largest, n = 0.0, len(labels)
    for rows in labels.argsort(stable=True).split(counts.tolist()):
        share = len(rows) / n
        ahead = torch.arange(1, len(rows) + 1) - share * (rows + 1)  # after each row of the class
        furthest = max(float(ahead.max()), float((1 - share - ahead).max()))  # and before it
        largest = max(largest, furthest / math.sqrt(n * share * (1 - share)))
    return largest
