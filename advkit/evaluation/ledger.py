"""The record of an attack, and the adversarial images beside it.

``verdicts.jsonl`` has a line per image and stage.
``adversarial.bin`` holds the adversarial images: float32 (N, C, H, W), zeros where there is none. An image is
written before its line, so every line has its image. Process R > 0 of several writes ``adversarial.R.bin``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor

from advkit.attacks.engine.outcome import Found, Outcome
from advkit.core import distributed, files
from advkit.core.journal import Record
from advkit.data.data import Data
from advkit.evaluation.result import COMPLETE, Verdict
from advkit.models.card import Shape


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
        with files.writing(path):
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            self._file.truncate(n * self._size)

    def write(self, row: int, image: Tensor) -> None:
        """Writes the image (C, H, W) of one row."""
        with files.writing(self.path):
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


def images_of(folder: Path, rank: int = 0) -> Path:
    """The images that one process wrote; those of process 0 are all of them once the record is finished."""
    return folder / (f"adversarial.{rank}.bin" if rank else "adversarial.bin")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Outcome):
    """The outcome of one stage on one image."""

    id: int
    stage: str

    __pydantic_config__: ClassVar = ConfigDict(ser_json_inf_nan="constants")

    @classmethod
    def of(cls, id: int, stage: str, found: Found) -> Entry:
        """What a search found."""
        return cls(id=id, stage=stage, **asdict(found.outcome))

    @classmethod
    def verified(cls, id: int, distance: float) -> Entry:
        """An adversarial example of complete verification, which counts no passes."""
        nothing = {"iteration": 0, "variant": 0, "refuted": 0, "forwards": 0, "backwards": 0}
        return cls(id=id, stage=COMPLETE, broken=True, distance=distance, margin=None, **nothing)


class Ledger(Record[tuple[str, int], Entry]):
    """Verdicts by (stage, id), with adversarial images.

    Args:
        folder: of the files; None: everything stays in memory.
        data: the attacked images.
        stages: names of the stages, in order.
        keep: keep adversarial images, also without a folder.
    """

    def __init__(self, folder: Path | None, data: Data, stages: Sequence[str], *, keep: bool) -> None:
        self._data, self._keep = data, keep
        self._images: dict[int, Tensor] = {}
        self._merged: ImageWriter | None = None
        super().__init__(folder, "verdicts", 3, Entry, data.ids.tolist(), stages)
        self._writer = None if folder is None else self._images_from(folder, distributed.rank())

    def add(self, entry: Entry, image: Tensor | None = None) -> None:
        """Records a verdict, and the adversarial image (C, H, W) of a broken one; None keeps that of an
        earlier stage."""
        if image is not None and entry.broken:
            if self._writer is not None:
                self._writer.write(self.rows[entry.id], image)
            elif self._keep:
                self._images[self.rows[entry.id]] = image
        super().add(entry)

    def finish(self) -> None:
        """Merges everything into the two plain files, or all images into the memory of every process."""
        for images in distributed.gather(self._images):
            self._images.update(images)
        super().finish()

    def image(self, entry: Entry) -> Tensor:
        """(C, H, W) the adversarial image of a broken entry, after `finish`."""
        row = self.rows[entry.id]
        if self._folder is None:
            return self._images[row]
        return read_image(images_of(self._folder), row, self._data.shape)

    def adversarial(self, broken: Iterable[Entry]) -> Tensor:
        """(N, C, H, W) float32: adversarial images of these entries, originals elsewhere, after `finish`."""
        x, _ = self._data.batch(torch.arange(len(self._data)))
        for entry in broken:
            x[self.rows[entry.id]] = self.image(entry)
        return x

    def close(self) -> None:
        """The files are at rest."""
        super().close()
        if self._writer is not None:
            self._writer.__exit__()

    def _images_from(self, folder: Path, rank: int) -> ImageWriter:
        return ImageWriter(images_of(folder, rank), len(self._data), self._data.shape)

    def _merge(self, folder: Path) -> None:
        with self._images_from(folder, 0) as self._merged:
            super()._merge(folder)
        for images in folder.glob("adversarial.*.bin"):  # after the lines, which need them
            images.unlink()

    def _merge_more(self, entry: Entry, rank: int) -> None:
        if rank and entry.broken and self._folder is not None and self._merged is not None:
            row = self.rows[entry.id]
            self._merged.write(row, read_image(images_of(self._folder, rank), row, self._data.shape))


class Adversarial:
    """The images of an evaluation in a run folder: the adversarial image if there is one, else the original.

    Args:
        folder: the run folder.
        data: the attacked images.
        verdicts: one for each image.
    """

    def __init__(self, folder: Path, data: Data, verdicts: Sequence[Verdict]) -> None:
        self.path, self.data = images_of(folder), data
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
