"""Image files that are decoded on access."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advkit.core.errors import DataError
from advkit.models.card import Shape

R = TypeVar("R")

_GREY = {"1", "L", "LA"}
_DEEP = ("I", "F")  # PIL's names of modes with more than 8 bits begin with these


@dataclass(frozen=True)
class ImageFiles:
    """Stands where a uint8 tensor (N, C, H, W) would: indexing it with rows decodes those files.

    Made by `find`, which reads every header, so that a wrong size is found before the work begins.
    """

    folder: Path
    names: tuple[str, ...]
    """Paths below ``folder``."""
    image: Shape
    dtype: ClassVar[torch.dtype] = torch.uint8

    @classmethod
    def find(cls, folder: Path, names: tuple[str, ...]) -> ImageFiles:
        """The named files; one channel if all are grey, else three (transparency is dropped).

        Raises:
            DataError: a file is no readable 8-bit image, or the sizes differ.
        """
        headers = _on_threads(lambda row: _header(folder / names[row]), len(names))
        size = headers[0][0]
        for name, (other, _) in zip(names, headers, strict=True):
            if other != size:
                raise DataError(
                    f"images in {folder} differ in size: {names[0]} is {size[0]}x{size[1]} but {name} is "
                    f"{other[0]}x{other[1]}; resize them to one size"
                )
        channels = 1 if all(grey for _, grey in headers) else 3
        return cls(folder, names, (channels, size[1], size[0]))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)"""
        return (len(self), *self.image)

    def take(self, rows: Tensor) -> ImageFiles:
        """The files of ``rows``, still undecoded."""
        return replace(self, names=tuple(self.names[row] for row in rows.tolist()))

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """uint8 images (n, C, H, W) of a slice, of row numbers or of a mask.

        Raises:
            DataError: a file cannot be decoded, or has changed since it was found.
        """
        rows = torch.arange(len(self))[index].tolist()
        images = torch.empty((len(rows), *self.image), dtype=torch.uint8)

        def decode(place: int) -> None:
            images[place] = _pixels(self.folder / self.names[rows[place]], self.image)

        _on_threads(decode, len(rows))
        return images


def _on_threads(work: Callable[[int], R], count: int) -> list[R]:
    """``work`` of 0..count-1 in order; decoding and reading release the interpreter lock."""
    workers = min(count, os.cpu_count() or 1, 16)
    if workers <= 1:
        return [work(item) for item in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        shares = list(
            pool.map(lambda first: [work(item) for item in range(first, count, workers)], range(workers))
        )
    return [shares[item % workers][item // workers] for item in range(count)]


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """((width, height), whether it is grey)"""
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except Exception as error:
        raise _unreadable(path) from error
    if mode.startswith(_DEEP):
        raise DataError(f"{path} has more than 8 bits a channel (mode {mode}); save it with 8 bits")
    return size, mode in _GREY


def _pixels(path: Path, shape: Shape) -> Tensor:
    try:
        with Image.open(path) as image:
            array = np.array(image.convert("L" if shape[0] == 1 else "RGB"))
    except Exception as error:
        raise _unreadable(path) from error
    if array.shape[:2] != shape[1:]:
        raise DataError(f"{path} has changed its size since it was first read; leave the folder as it is")
    return torch.from_numpy(array).view(*shape[1:], shape[0]).permute(2, 0, 1)


def _unreadable(path: Path) -> DataError:
    return DataError(f"{path} cannot be read as an image (damaged, or no image); fix or remove it")
