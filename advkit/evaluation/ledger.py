"""The record of verdicts as they fall, which survives kill -9.

``verdicts.jsonl`` has a first line that says what is being evaluated, then one line per image and stage.
``adversarial.bin`` holds the adversarial images, float32, in the order in which their lines follow each
other; an image is written before its line, so a line never points at nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from advkit import files
from advkit.config import StrictModel
from advkit.data.data import Data
from advkit.errors import ConfigError
from advkit.evaluation.result import Verdict
from advkit.models.card import Shape

SCHEMA = "advkit/verdicts"
VERSION = 2
BINARY = "adversarial.bin"


class Entry(StrictModel):
    """How one image came out of one stage."""

    id: int
    stage: str
    broken: bool
    iteration: int
    variant: int
    distance: float
    margin: float | None
    refuted: int
    forwards: int
    backwards: int
    place: int | None = None
    """Which image of ``adversarial.bin`` it is, when broken."""


class Ledger:
    """Verdicts by (stage, id); in memory alone when there is no folder. A context manager.

    Args:
        folder: where the files are.
        identity: what determines the verdicts; a folder of another evaluation is refused.
        shape: of the images.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], shape: Shape) -> None:
        self.entries: dict[tuple[str, int], Entry] = {}
        self._shape = shape
        self._images: dict[int, Tensor] = {}
        self._count = 0
        self._lines: IO[str] | None = None
        self._binary: IO[bytes] | None = None
        if folder is None:
            return
        self._path = folder / "verdicts.jsonl"
        self._binary_path = folder / BINARY
        header = json.dumps({"schema": SCHEMA, "version": VERSION, **identity}, sort_keys=True)
        with files.writing(folder):
            kept = self._recover(header) if self._path.exists() else 0
            self._lines = self._path.open("r+" if kept else "w")
            self._lines.seek(kept)
            self._lines.truncate()
            self._binary = self._binary_path.open("r+b" if self._binary_path.exists() else "w+b")
            self._binary.seek(self._count * _image_bytes(shape))
            self._binary.truncate()
            if not kept:
                self._write(header)

    def _recover(self, header: str) -> int:
        """Reads what an earlier process wrote; returns the length of the whole lines."""
        kept = 0
        for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break  # the line that a crash cut short
            if number == 0:
                if line.decode().strip() != header:
                    raise ConfigError(
                        f"{self._path} records another evaluation (the model, the data or the attacks "
                        "changed); choose another folder with --out"
                    )
            else:
                entry = Entry.model_validate_json(line)
                self.entries[entry.stage, entry.id] = entry
                self._count += entry.broken
            kept += len(line)
        return kept

    def add(self, entry: Entry, image: Tensor) -> None:
        """Records a verdict; of a broken image also its adversarial one, ``image`` (C, H, W)."""
        if entry.broken:
            entry = entry.model_copy(update={"place": self._count})
            if self._binary is not None:
                with files.writing(self._binary_path):
                    self._binary.write(image.float().contiguous().numpy().tobytes())
                    self._binary.flush()
            else:
                self._images[self._count] = image
            self._count += 1
        self.entries[entry.stage, entry.id] = entry
        if self._lines is not None:
            self._write(entry.model_dump_json())

    def _write(self, line: str) -> None:
        assert self._lines is not None
        with files.writing(self._path):
            self._lines.write(line + "\n")
            self._lines.flush()

    def image(self, entry: Entry) -> Tensor:
        """(C, H, W) the adversarial image of a broken entry."""
        assert entry.place is not None
        if self._binary is None:
            return self._images[entry.place]
        return _read(self._binary_path, entry.place, self._shape)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._lines, self._binary):
            if file is not None:
                file.close()


def _image_bytes(shape: Shape) -> int:
    return 4 * math.prod(shape)


def _read(path: Path, place: int, shape: Shape) -> Tensor:
    content = np.fromfile(path, np.float32, math.prod(shape), offset=place * _image_bytes(shape))
    return torch.from_numpy(content).view(shape)


def saved_images(folder: Path, verdicts: Iterable[Verdict], data: Data) -> Tensor:
    """(N, C, H, W) float32 from a run folder: the adversarial image where there is one, else the original."""
    x, _ = data.batch(torch.arange(len(data)))
    for index, verdict in enumerate(verdicts):
        if verdict.place is not None:
            x[index] = _read(folder / BINARY, verdict.place, data.shape)
    return x
