"""In which order training sees the images: a function of (seed, step), so a resumed run sees the same."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core import rng


class Order:
    """An endless sequence of epochs, each a random permutation of ``range(n)``, cut into batches.

    A batch may straddle two epochs, so that no image is left out.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def _of(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, rng.permutation(self.seed, "order", self.n, epoch)
        return self._permutation

    def batch(self, step: int) -> Tensor:
        """(batch_size,) int64 indices of batch number ``step``."""
        parts, position, missing = [], step * self.batch_size, self.batch_size
        while missing:
            epoch, offset = divmod(position, self.n)
            part = self._of(epoch)[offset : offset + missing]
            parts.append(part)
            position, missing = position + len(part), missing - len(part)
        return torch.cat(parts)
