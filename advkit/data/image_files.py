"""Image files that are decoded on access."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advkit.core import files
from advkit.core.cores import cores
from advkit.core.errors import DataError
from advkit.core.notes import Note
from advkit.data.read_ahead import ReadAhead
from advkit.models.card import Shape

R = TypeVar("R")

SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Endings of the files that are taken for images, in lower case."""

GREY = {"1", "L", "LA"}
"""PIL's names of the modes without colours."""
_DEEP = ("I", "F")  # PIL's names of modes with more than 8 bits begin with these
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""PIL's names of those formats. It knows others, and starts programs for one of them."""
PIXELS = 64_000_000
"""Most pixels of an image file."""
_ORIENTATION = 0x0112
"""The tag of EXIF that says how a viewer turns the pixels; 1: not at all."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Fit:
    """How images come to one size, as torchvision's ``Resize`` and ``CenterCrop`` do it."""

    resize: tuple[int, ...] | None = None
    """The shorter side, or (height, width); with antialiasing."""
    crop: int | None = None
    """Side of the square that is cut out of the middle."""
    bicubic: bool = False
    """Interpolation; else bilinear."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image of that size, when it is fitted."""
        width, height = self.resized(width, height)
        return (width, height) if self.crop is None else (self.crop, self.crop)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) before the crop."""
        if not self.resize:
            return width, height
        if len(self.resize) == 2:
            return self.resize[1], self.resize[0]
        (side,) = self.resize
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, resized and cropped."""
        resized = self.resized(*image.size)
        if resized != image.size:
            way = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
            image = image.resize(resized, way)
        if self.crop is None or image.size == (self.crop, self.crop):
            return image
        left, top = (round((side - self.crop) / 2) for side in image.size)
        return image.crop((left, top, left + self.crop, top + self.crop))


WHOLE = Fit()


@dataclass(frozen=True)
class ImageFiles:
    """Stands where a uint8 tensor (N, C, H, W) would: indexing it with rows decodes those files.

    Made by `find`, which reads every header, so that a wrong size is found before the work begins.
    """

    folder: Path
    names: tuple[str, ...]
    """Paths below ``folder``."""
    image: Shape
    fit: Fit = WHOLE
    notes: tuple[Note, ...] = ()
    dtype: ClassVar[torch.dtype] = torch.uint8

    @cached_property
    def _ahead(self) -> ReadAhead:
        return ReadAhead(self._decoded)

    @classmethod
    def find(cls, folder: Path, names: tuple[str, ...], fit: Fit = WHOLE) -> ImageFiles:
        """The named files; one channel if all are grey, else three (transparency is dropped).

        Raises:
            DataError: a file is no readable image of 8 or 16 bits, or the sizes differ.
        """
        headers = _on_threads(lambda row: _header(folder / names[row]), len(names))
        size = fit.size(*headers[0].size)
        for name, header in zip(names, headers, strict=True):
            if (other := fit.size(*header.size)) != size:
                raise DataError(
                    f"images in {folder} differ in size: {names[0]} is {size[0]}x{size[1]} but {name} is "
                    f"{other[0]}x{other[1]}; bring them to one size with --resize and --crop"
                )
            if fit.crop is not None and fit.crop > min(fit.resized(*header.size)):
                raise DataError(f"{name} in {folder} is smaller than the crop of {fit.crop}; use --resize")
        notes = []
        if deep := sum(header.deep for header in headers):
            said = f"{deep:,} images have 16 bits a channel; their range 0..65535 was scaled to 8 bits"
            notes.append(Note("sixteen-bit", said))
        if turned := sum(header.turned for header in headers):
            said = f"{turned:,} images are taken as stored, not turned as their EXIF orientation says"
            notes.append(Note("orientation", said))
        if clear := sum(header.clear for header in headers):
            said = f"{clear:,} images have an alpha channel, which was left out"
            notes.append(Note("transparency", said))
        if several := sum(header.several for header in headers):
            said = f"{several:,} images have several frames or pages, of which the first was taken"
            notes.append(Note("first-frame", said))
        if changed := sum({header.size, fit.resized(*header.size)} != {size} for header in headers):
            said = f"{changed:,} of {len(names):,} images were resized or cropped to {size[0]}x{size[1]}"
            notes.append(Note("resized", said))
        channels = 1 if all(header.grey for header in headers) else 3
        return cls(folder, names, (channels, size[1], size[0]), fit, tuple(notes))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_ahead"}

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
        if not (known := self._ahead.take(rows)):
            return self._decoded(rows)
        late = [row for row in rows if row not in known]
        known |= zip(late, self._decoded(late), strict=True)
        return torch.stack([known[row] for row in rows])

    def expect(self, rows: Sequence[int]) -> None:
        """Has rows that are wanted next decoded on a thread; later calls replace earlier ones."""
        self._ahead.expect(rows)

    def _decoded(self, rows: Sequence[int]) -> Tensor:
        images = torch.empty((len(rows), *self.image), dtype=torch.uint8)

        def decode(place: int) -> None:
            images[place] = _pixels(self.folder / self.names[rows[place]], self.image, self.fit)

        _on_threads(decode, len(rows))
        return images


def _on_threads(work: Callable[[int], R], count: int) -> list[R]:
    """``work`` of 0..count-1 in order; decoding and reading release the interpreter lock."""
    workers = min(count, cores(), 16)
    if workers <= 1:
        return [work(item) for item in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        shares = list(
            pool.map(lambda first: [work(item) for item in range(first, count, workers)], range(workers))
        )
    return [shares[item % workers][item // workers] for item in range(count)]


class _Header(NamedTuple):
    size: tuple[int, int]
    """(width, height)"""
    grey: bool
    deep: bool
    """Whether it has 16 bits a channel."""
    turned: bool
    """Whether a viewer turns it, which torchvision does not."""
    clear: bool
    """Whether it has an alpha channel, or a transparent colour."""
    several: bool
    """Whether it has several frames or pages; a photograph with a preview has not."""


def _turned(image: Image.Image) -> bool:
    if "exif" not in image.info:
        return False
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # damaged, as that of many readable images is
        return False


def _header(path: Path) -> _Header:
    try:
        with os.fdopen(files.opened(path), "rb") as file:
            first = file.read(25)
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                size, mode, kind = image.size, image.mode, image.format
                turned, clear = _turned(image), mode in ("RGBA", "LA", "PA") or "transparency" in image.info
                several = kind != "MPO" and getattr(image, "n_frames", 1) > 1
        if size[0] * size[1] > PIXELS:
            raise DataError(f"{path} has {size[0]:,}x{size[1]:,} pixels; make it smaller")
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path) from error
    deep = first.startswith(_PNG) and first[24] == 16  # PIL itself reads colours of 16 bits as 8
    deep = deep or mode.startswith("I;16") or (mode == "I" and kind == "PPM")
    if mode.startswith(_DEEP) and not deep:
        raise DataError(f"{path} has more than 16 bits a channel (mode {mode}); save it with 8 bits")
    return _Header(size, mode in GREY or mode.startswith(_DEEP), deep, turned, clear, several)


def pixels(image: Image.Image, channels: int, fit: Fit = WHOLE) -> Tensor:
    """(C, H, W) 8-bit levels of a PIL image, grey or in colour."""
    if image.mode.startswith("I"):  # 16 bits
        deep = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    array = np.array(fit(image.convert("L" if channels == 1 else "RGB")))
    return torch.from_numpy(array).view(array.shape[0], array.shape[1], channels).permute(2, 0, 1)


def _pixels(path: Path, shape: Shape, fit: Fit) -> Tensor:
    try:
        with os.fdopen(files.opened(path), "rb") as file, Image.open(file, formats=_FORMATS) as image:
            if image.size[0] * image.size[1] > PIXELS:
                raise ValueError("it has grown")
            if image.format == "PNG":  # whose checksums PIL does not compare when it decodes
                image.verify()
                file.seek(0)
                with Image.open(file, formats=_FORMATS) as again:
                    made = pixels(again, shape[0], fit)
            else:
                made = pixels(image, shape[0], fit)
    except Exception as error:
        raise _unreadable(path) from error
    if tuple(made.shape) != shape:
        raise DataError(f"{path} has changed its size since it was first read; leave the folder as it is")
    return made


def _unreadable(path: Path) -> DataError:
    return DataError(f"{path} cannot be read as an image (damaged, or no image); fix or remove it")
