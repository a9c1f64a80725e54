"""Every epoch shows every image once, whatever the batch size."""

from __future__ import annotations

import pytest
import torch

from advkit.data.augment import Order


@pytest.mark.parametrize(("n", "batch_size"), [(10, 5), (10, 4), (7, 7), (5, 12)])
def test_epochs_are_permutations(n: int, batch_size: int):
    seen = torch.cat([Order(n, batch_size, seed=3).batch(step) for step in range(3 * n)])
    epochs = seen[: len(seen) // n * n].view(-1, n)
    assert torch.equal(epochs.sort(1).values, torch.arange(n).expand_as(epochs))
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_depends_on_seed_and_step_alone():
    forward, backward = Order(10, 4, seed=0), Order(10, 4, seed=0)
    one = [forward.batch(step) for step in range(9)]
    other = [backward.batch(step) for step in reversed(range(9))]
    assert all(map(torch.equal, one, reversed(other)))
    assert not torch.equal(torch.cat(one), torch.cat([Order(10, 4, seed=1).batch(s) for s in range(9)]))
