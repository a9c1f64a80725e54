"""Order and random augmentation of training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

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


def shift_and_flip(
    images: Tensor, ids: Tensor, step: Tensor | int, seed: int, *, shift: int = 0, flip: bool = False
) -> Tensor:
    """Each image moved by up to ``shift`` pixels in both directions, black coming in, and mirrored or not.

    What happens to an image depends on (seed, its id, step) alone: not on its batch, nor on the device.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        ids: (N,) int64 ids of the samples, on the same device.
        step: training step or epoch, one for all or (N,).
        shift: largest movement, drawn uniformly from -shift..shift.
        flip: mirror left and right with probability 1/2 (not for digits and letters).

    Returns:
        (N, C, H, W); ``images`` itself where there is nothing to do.
    """
    if shift == 0 and not flip:
        return images
    count, channels, height, width = images.shape
    device = images.device
    key = rng.keys(seed, "augment", ids, step)
    moves = rng.integers(key, (2,), 2 * shift + 1)  # 0..2 shift, in the padded image
    columns = torch.arange(width, device=device).expand(count, width)
    if flip:
        mirrored = rng.uniform(key, (1,), lane=2) < 0.5  # lanes 0 and 1 are the two moves
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + moves[:, 1:]
    rows = torch.arange(height, device=device) + moves[:, :1]
    padded = torch.nn.functional.pad(images, [shift] * 4)
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def coarsen(images: Tensor, ids: Tensor, step: Tensor | int, seed: int, *, side: int = 0) -> Tensor:
    """Half of the images shrunk to ``side`` x ``side`` pixels and enlarged again: blurred.

    Which images depends on (seed, id, step) alone.

    Args:
        images: (N, C, H, W) floats in [0, 1].
        ids: (N,) int64 ids of the samples, on the same device.
        step: training step or epoch, one for all or (N,).
        side: pixels; 0 leaves all images as they are.

    Returns:
        (N, C, H, W); ``images`` itself where there is nothing to do.
    """
    if side == 0:
        return images
    chosen = rng.uniform(rng.keys(seed, "coarsen", ids, step), (1, 1, 1)) < 0.5
    small = interpolate(images, (side, side), mode="bilinear", antialias=True)
    return torch.where(chosen, interpolate(small, images.shape[2:], mode="bilinear"), images)
