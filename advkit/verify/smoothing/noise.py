"""Noisy copies of an image, drawn as fast as a small network reads them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.core import rng

BLOCK = 100
"""Copies that are drawn at a time; other numbers would be drawn in other blocks."""
STREAM = "smoothing"
QUERIES = "smoothing queries"
"""Names of the noise by which images of a data set are judged, and of the one that questions share."""


class Copies:
    """Image plus N(0, sigma^2), copy after copy: the noise is a function of (seed, stream, sample, copy).

    `rng.normal` makes each number for itself by integer arithmetic, which takes a CPU a sixth of a small
    network's time or more. So a sample has a generator of PyTorch's (a twenty-fifth), seeded by
    (seed, stream, sample), that draws block after block of `BLOCK` copies: the numbers do not depend on the
    size of a pass. A sample has only one, because the CPU's takes 32 bits of the seed: two of them might be
    alike. A CPU and a GPU draw different numbers.

    The noise is not clipped: the certificate is about Gaussian noise and no other.

    Args:
        image: (C, H, W) floats in [0, 1].
        sigma: standard deviation.
        seed: the user's.
        stream: what the noise is for.
        sample: id of the image.
    """

    def __init__(self, image: Tensor, sigma: float, *, seed: int, stream: str, sample: int) -> None:
        self._image, self._sigma = image.permute(1, 2, 0), sigma
        self._generator = torch.Generator(image.device).manual_seed(rng.derive(seed, stream, sample))

    def passes(self, count: int, size: int) -> Iterator[Tensor]:
        """The next ``count`` copies in passes of (M, C, H, W), channels-last, each valid until the next.

        Passes consist of whole blocks, so the last one may have more copies than are asked for: those behind
        ``count`` are nobody's.

        Args:
            count: copies, 1 or more.
            size: of a pass, as near as whole blocks come to it.
        """
        blocks = -(-count // BLOCK)
        many = min(blocks, max(1, size // BLOCK))
        room = self._image.new_empty((many * BLOCK, *self._image.shape))
        for first in range(0, blocks, many):
            some = room[: min(many, blocks - first) * BLOCK]
            for block in some.split(BLOCK):  # contiguous, without which a CPU draws one number at a time
                block.normal_(0.0, self._sigma, generator=self._generator).add_(self._image)
            yield some.permute(0, 3, 1, 2)
