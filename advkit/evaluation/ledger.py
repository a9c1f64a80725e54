"""The record of an attack, and the adversarial images beside it.

``verdicts.jsonl`` has a line per image and stage.
``adversarial.bin`` holds the adversarial images: float32 (N, C, H, W), zeros where there is none. An image is
written before its line, so every line has its image; it has the image's digest, too. In place of one that has
a line, a nearer one is first written to ``adversarial.next.bin``, so that a crash before its own line loses
nothing. Process R > 0 of several writes ``adversarial.R.bin``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from advkit.attacks.engine.oracle import query
from advkit.attacks.engine.outcome import Found, Outcome
from advkit.attacks.perturb import device_of
from advkit.core import distributed, files
from advkit.core.errors import DataError
from advkit.core.journal import Record
from advkit.core.progress import SILENT, Progress
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation.result import COMPLETE, Verdict
from advkit.models.card import Shape

PIECE = 100
"""Images in memory at a time."""


class ImageWriter:
    """``n`` float32 images (C, H, W) in a file, in order; images not written are zeros and take no space on
    the disk. A context manager.

    Args:
        path: of the file, which is created if it does not exist.
    """

    def __init__(self, path: Path, n: int, shape: Shape) -> None:
        self.path, self._size = path, _bytes(shape)
        with files.writing(path):
            number = files.opened(path, os.O_RDWR | os.O_CREAT, own=True)
            self._file = os.fdopen(number, "r+b", buffering=0)
            self._file.truncate(n * self._size)

    def write(self, row: int, image: Tensor) -> None:
        """Writes the image (C, H, W) of one row."""
        with files.writing(self.path):
            self._file.seek(row * self._size)
            self._file.write(_content(image))

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_image(path: Path, row: int, shape: Shape) -> Tensor:
    """(C, H, W) the image that an `ImageWriter` wrote for one row."""
    with os.fdopen(files.opened(path, own=True), "rb") as file:
        content = np.fromfile(file, np.float32, math.prod(shape), offset=row * _bytes(shape))
    return torch.from_numpy(content).view(shape)


def _bytes(shape: Shape) -> int:
    return 4 * math.prod(shape)


def _content(image: Tensor) -> bytes:
    return image.detach().cpu().float().contiguous().numpy().tobytes()


def _intact(path: Path, row: int, shape: Shape, known: str | None) -> Tensor | None:
    """The image of a row, if it has the digest ``known``."""
    try:
        image = read_image(path, row, shape)
    except (OSError, ValueError, RuntimeError):  # there is no such file, or it is too short
        return None
    return image if known in (None, files.digest(_content(image))) else None


def images_of(folder: Path, rank: int = 0) -> Path:
    """The images that one process wrote; those of process 0 are all of them once the record is finished."""
    return folder / (f"adversarial.{rank}.bin" if rank else "adversarial.bin")


def following(path: Path) -> Path:
    """Where the nearer images of those in a file wait for their lines."""
    return path.with_suffix(".next.bin")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Outcome):
    """The outcome of one stage on one image."""

    id: int
    stage: str
    image_sha256: str | None = None
    """Of the bytes of its image in ``adversarial.bin``, if it has one there."""

    __pydantic_config__: ClassVar = ConfigDict(ser_json_inf_nan="constants")

    @classmethod
    def of(cls, id: int, stage: str, found: Found) -> Entry:
        """What a search found."""
        return cls(id=id, stage=stage, **asdict(found.outcome))

    @classmethod
    def verified(cls, id: int, distance: float) -> Entry:
        """An adversarial example of complete verification, which counts no passes."""
        return cls(
            id=id,
            stage=COMPLETE,
            broken=True,
            distance=distance,
            margin=None,
            iteration=0,
            variant=0,
            refuted=0,
            forwards=0,
            backwards=0,
        )


class Ledger(Record[tuple[str, int], Entry]):
    """Verdicts by (stage, id), with adversarial images.

    Args:
        folder: of the files; None: everything stays in memory.
        keep: keep adversarial images, also without a folder.
        confirm: says of images (N, C, H, W) that an earlier process left, with the rows (N,) of their
            originals, which are adversarial: (N,) bool. The others are searched again.
        parts: run folders of shards, as in `Record`.
    """

    def __init__(
        self,
        folder: Path | None,
        data: Data,
        stages: Sequence[str],
        *,
        keep: bool,
        confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
        parts: Sequence[Path] = (),
        progress: Progress = SILENT,
    ) -> None:
        self._data, self._keep, self._confirm = data, keep, confirm
        self._images: dict[int, Tensor] = {}
        self._merged: ImageWriter | None = None
        ids = data.ids.tolist()
        super().__init__(folder, "verdicts", 3, Entry, ids, stages, parts=parts, progress=progress)
        self._confirm = None  # what is found from here on, the search confirms
        self._writer = None if folder is None else self._images_from(folder, distributed.rank())

    def add(self, entry: Entry, image: Tensor | None = None) -> None:
        """Records a verdict, and the adversarial image (C, H, W) of a broken one; None keeps that of an
        earlier stage."""
        if image is None or not entry.broken:
            super().add(entry)
            return
        row, entry = self.rows[entry.id], replace(entry, image_sha256=files.digest(_content(image)))
        held = any(one.image_sha256 for one in self._of_image(entry.id))
        if self._writer is None:
            self._images |= {row: image} if self._keep else {}
        elif held:
            with ImageWriter(following(self._writer.path), len(self._data), self._data.shape) as spare:
                spare.write(row, image)
        else:
            self._writer.write(row, image)
        super().add(entry)
        if self._writer is not None and held:
            self._writer.write(row, image)

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

    def _adopt(self, entry: Entry, part: Path) -> None:
        if entry.broken and self._writer is not None:
            row = self.rows[entry.id]
            image = _intact(images_of(part), row, self._data.shape, entry.image_sha256)
            if image is not None:  # else a later entry of this image has written its own
                self._writer.write(row, image)
        super()._adopt(entry, part)

    def _of_image(self, sample: int) -> list[Entry]:
        return [entry for name in self._stages if (entry := self.entries.get((name, sample))) is not None]

    def _images_from(self, folder: Path, rank: int) -> ImageWriter:
        return ImageWriter(images_of(folder, rank), len(self._data), self._data.shape)

    def _merge(self, folder: Path) -> None:
        with self._images_from(folder, 0) as self._merged:
            super()._merge(folder)
        for images in folder.glob("adversarial.*.bin"):  # after the lines, which need them
            images.unlink()

    def _sound(self, entries: list[Entry], folder: Path, rank: int) -> list[Entry]:
        """Entries whose images are there. Of several of one image, the last to have a digest wrote it."""
        assert self._merged is not None
        path, last = images_of(folder, rank), dict[int, Entry]()
        for entry in sorted(entries, key=self._order):
            row = self.rows[entry.id]
            if entry.broken and (entry.image_sha256 is not None or row not in last):
                last[row] = entry
        missing, late = set[int](), set[int]()
        for rows in torch.tensor([*last]).long().split(PIECE):
            found = {}
            for row in rows.tolist():
                image = _intact(path, row, self._data.shape, last[row].image_sha256)
                if image is None:
                    image = _intact(following(path), row, self._data.shape, last[row].image_sha256)
                    late.add(row)
                if image is None:
                    missing.add(row)
                else:
                    found[row] = image
            if self._confirm is not None and found:
                sure = self._confirm(torch.stack([*found.values()]), torch.tensor([*found])).tolist()
                missing |= {row for row, adversarial in zip(found, sure, strict=True) if not adversarial}
            if folder == self._folder:
                for row in found.keys() - missing if rank else late & found.keys() - missing:
                    self._merged.write(row, found[row])
        return [entry for entry in entries if not (entry.broken and self.rows[entry.id] in missing)]


def confirming(model: nn.Module | None, data: Data, threat: Threat) -> Callable[[Tensor, Tensor], Tensor]:
    """``confirm`` of a `Ledger`: the images are inside the threat model, and the model, if one is given,
    misclassifies them."""

    def confirm(x: Tensor, rows: Tensor) -> Tensor:
        x0, labels = data.batch(rows)
        inside = threat.contains(x, x0)
        if model is None:
            return inside
        with torch.no_grad():
            return inside & (query(model, x.to(device_of(model))).argmax(1).cpu() != labels)

    return confirm


class Adversarial:
    """The images of an evaluation in a run folder: the adversarial image if there is one, else the original.

    Args:
        verdicts: one for each image.
    """

    def __init__(self, folder: Path, data: Data, verdicts: Sequence[Verdict]) -> None:
        self.path, self.data, self._verdicts = images_of(folder), data, verdicts
        self.broken = torch.tensor([verdict.status == "broken" for verdict in verdicts])
        """(N,) bool"""

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32 images of the rows ``rows`` (n,).

        Raises:
            DataError: an image is not the one that was found.
        """
        x, _ = self.data.batch(rows)
        for place, row in enumerate(rows.tolist()):
            if self.broken[row]:
                verdict = self._verdicts[row]
                image = _intact(self.path, row, self.data.shape, verdict.image_sha256)
                if image is None or not (image.min() >= 0 and image.max() <= 1):
                    raise DataError(
                        f"{self.path} is damaged: image {verdict.id} is not the one that was found; "
                        "run the attack again in another folder (--out)"
                    )
                x[place] = image
        return x
