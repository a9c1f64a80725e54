"""The ledger: a record of verdicts on the disk, written as they are reached, which survives kill -9.

``verdicts.jsonl`` has a line per image and stage.
``adversarial.bin`` holds the adversarial images: float32 (N, C, H, W), zeros where there is none. An image is
written before its line, so every line has its image.

With several processes, process R > 0 writes ``verdicts.R.jsonl`` and ``adversarial.R.bin``. When a ledger is
opened, and at the end, all are merged into the two plain files, in an order that does not depend on the
number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from advkit.attacks.engine.outcome import Outcome
from advkit.core import distributed, files
from advkit.core.journal import Journal
from advkit.data.data import Data
from advkit.evaluation.adversarial import ImageWriter, read_image


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Outcome):
    """The outcome of one stage on one image."""

    id: int
    stage: str


class Ledger:
    """Verdicts by (stage, id): those of this process, and those of the others up to the last `exchange`.

    A context manager; all processes create it, `exchange` and `finish` at the same time.

    Args:
        folder: of the files; None: everything stays in memory.
        data: the attacked images.
        stages: names of the stages, in order.
        keep: keep adversarial images, also without a folder.
    """

    def __init__(self, folder: Path | None, data: Data, stages: Sequence[str], *, keep: bool) -> None:
        self.entries: dict[tuple[str, int], Entry] = {}
        self._folder, self._shape, self._keep = folder, data.shape, keep
        self._rows = {sample: row for row, sample in enumerate(data.ids.tolist())}
        self._order = {stage: number for number, stage in enumerate(stages)}
        self._news: list[Entry] = []
        self._images: dict[int, Tensor] = {}
        self._lines: Journal | None = None
        self._file: ImageWriter | None = None
        self._open = ExitStack()
        if folder is None:
            return
        rank = distributed.rank()
        lines, images = _paths(folder, rank)
        with files.writing(folder):
            if rank == 0:
                self._merge(folder)
            self.entries = distributed.share(self.entries)
            self._file = self._open.enter_context(self._writer(images))
            self._lines = _journal(lines)
            self._open.callback(self._lines.close)

    def add(self, entry: Entry, image: Tensor | None) -> None:
        """Records a verdict, and the adversarial image (C, H, W) of a broken one; None keeps that of an
        earlier stage."""
        row = self._rows[entry.id]
        if image is None or not entry.broken:
            pass
        elif self._file is not None:
            with files.writing(self._file.path):
                self._file.write(row, image)
        elif self._keep:
            self._images[row] = image
        self._learn(entry)
        self._news.append(entry)
        if self._lines is not None:
            self._lines.add(json.dumps(asdict(entry)))

    def exchange(self) -> None:
        """Shares the verdicts since the last exchange with the other processes, and receives theirs."""
        for entries in distributed.gather(self._news):
            for entry in entries:
                self._learn(entry)
        self._news = []

    def finish(self) -> None:
        """Merges everything into the two plain files, or all images into the memory of every process."""
        self._open.close()
        for images in distributed.gather(self._images):  # by now all have closed their files
            self._images.update(images)
        if self._folder is not None and distributed.rank() == 0:
            with files.writing(self._folder):
                self._merge(self._folder)
        distributed.gather(None)

    def image(self, entry: Entry) -> Tensor:
        """(C, H, W) the adversarial image of a broken entry, after `finish`."""
        row = self._rows[entry.id]
        if self._folder is None:
            return self._images[row]
        return read_image(_paths(self._folder, 0)[1], row, self._shape)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _learn(self, entry: Entry) -> None:
        self.entries[entry.stage, entry.id] = entry

    def _writer(self, path: Path) -> ImageWriter:
        return ImageWriter(path, len(self._rows), self._shape)

    def _merge(self, folder: Path) -> None:
        """Merges all files into the plain ones; after a crash it can be repeated."""
        lines, images = _paths(folder, 0)
        parts = [_paths(folder, int(path.name.split(".")[1])) for path in folder.glob("verdicts.*.jsonl")]
        for entry in _read(lines):
            self._learn(entry)
        with self._writer(images) as writer:
            for part, its_images in parts:
                for entry in _read(part):
                    self._learn(entry)
                    if entry.broken:
                        row = self._rows[entry.id]
                        writer.write(row, read_image(its_images, row, self._shape))
        ordered = sorted(self.entries.values(), key=lambda e: (self._order[e.stage], self._rows[e.id]))
        _journal(lines).replace(json.dumps(asdict(entry)) for entry in ordered)
        for part, _ in parts:  # the lines first: without its images a line could not be read again
            part.unlink()
        for its_images in folder.glob("adversarial.*.bin"):
            its_images.unlink()


def _paths(folder: Path, rank: int) -> tuple[Path, Path]:
    """The files of one process: its lines and its images."""
    part = f".{rank}" if rank else ""
    return folder / f"verdicts{part}.jsonl", folder / f"adversarial{part}.bin"


def _journal(path: Path) -> Journal:
    return Journal(path, "advkit/verdicts", 3)


def _read(path: Path) -> list[Entry]:
    return [Entry(**json.loads(line)) for line in _journal(path).read()]
