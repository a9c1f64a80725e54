"""Noisy copies of an image, drawn fast enough for small networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.core import rng

BLOCK = 100
"""Copies that are drawn at once; the random numbers depend on it."""
STREAM = "smoothing"
QUERIES = "smoothing queries"
"""Names of the noise of certificates, and of the noise that all queries share."""


class Copies:
    """Image plus N(0, sigma^2), copy after copy: the noise is a function of (seed, stream, sample, copy).

    `rng.normal` computes each number by integer arithmetic, which takes at least a sixth of a small network's
    time on a CPU. So each sample has a generator of PyTorch (a twenty-fifth of the time), seeded by
    (seed, stream, sample), that draws blocks of `BLOCK` copies: the numbers do not depend on the size of a
    pass. A sample has only one generator, because the CPU's uses 32 bits of the seed: two might be equal. A
    CPU and a GPU draw different numbers.

    The noise is not clipped, because the certificate requires Gaussian noise.

    Args:
        image: (C, H, W) floats in [0, 1].
        sigma: standard deviation.
        seed: the user's.
        stream: purpose of the noise.
        sample: id of the image.
    """

    def __init__(self, image: Tensor, sigma: float, *, seed: int, stream: str, sample: int) -> None:
        self._image, self._sigma = image.permute(1, 2, 0), sigma
        self._generator = torch.Generator(image.device).manual_seed(rng.derive(seed, stream, sample))

    def passes(self, count: int, size: int) -> Iterator[Tensor]:
        """The next ``count`` copies in passes of (M, C, H, W), channels-last, each valid until the next.

        Passes consist of whole blocks, so the last one may have surplus copies beyond ``count``: ignore them.

        Args:
            count: number of copies, at least 1.
            size: of a pass, rounded down to whole blocks.
        """
        blocks = -(-count // BLOCK)
        many = min(blocks, max(1, size // BLOCK))
        room = self._image.new_empty((many * BLOCK, *self._image.shape))
        for first in range(0, blocks, many):
            some = room[: min(many, blocks - first) * BLOCK]
            for block in some.split(BLOCK):  # contiguous, else a CPU draws one number at a time
                block.normal_(0.0, self._sigma, generator=self._generator).add_(self._image)
            yield some.permute(0, 3, 1, 2)
