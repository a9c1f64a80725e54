"""Adversarial images in a file, read and written one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.data.data import Data
from advkit.evaluation.result import Verdict
from advkit.models.card import Shape

NAME = "adversarial.bin"


class ImageWriter:
    """``n`` float32 images (C, H, W) in a file, in order; images not written are zeros and take no space on
    the disk. A context manager.

    Args:
        path: of the file, which is created if it does not exist.
        n: number of images.
        shape: of an image.
    """

    def __init__(self, path: Path, n: int, shape: Shape) -> None:
        self.path, self._size = path, _bytes(shape)
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._file.truncate(n * self._size)

    def write(self, row: int, image: Tensor) -> None:
        """Writes the image (C, H, W) of one row."""
        self._file.seek(row * self._size)
        self._file.write(image.float().contiguous().numpy().tobytes())

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_image(path: Path, row: int, shape: Shape) -> Tensor:
    """(C, H, W) the image that an `ImageWriter` wrote for one row."""
    content = np.fromfile(path, np.float32, math.prod(shape), offset=row * _bytes(shape))
    return torch.from_numpy(content).view(shape)


def _bytes(shape: Shape) -> int:
    return 4 * math.prod(shape)


class Adversarial:
    """The images of an evaluation in a run folder: the adversarial image if there is one, else the original.

    Args:
        folder: the run folder.
        data: the attacked images.
        verdicts: one for each image.
    """

    def __init__(self, folder: Path, data: Data, verdicts: Sequence[Verdict]) -> None:
        self.path, self.data = folder / NAME, data
        self.broken = torch.tensor([verdict.status == "broken" for verdict in verdicts])
        """(N,) bool"""

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32 images of the rows ``rows`` (n,)."""
        x, _ = self.data.batch(rows)
        for place, row in enumerate(rows.tolist()):
            if self.broken[row]:
                x[place] = read_image(self.path, row, self.data.shape)
        return x
