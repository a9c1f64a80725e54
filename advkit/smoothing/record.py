"""The record of certificates as they are reached, which survives kill -9.

``smoothed.jsonl`` has a first line that names the format, then one line per image. Each further process
that shares the work writes ``smoothed.R.jsonl``. When a record is opened, and when the work is over, all are
merged into the plain file, in the order of the data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from advkit import distributed, files
from advkit.errors import ConfigError
from advkit.smoothing.result import SmoothedVerdict

FORMAT = json.dumps({"schema": "advkit/smoothed", "version": 1})
"""The first line."""


class Record:
    """Verdicts by id: those of this process, and those of all as of when it was opened; a context manager.

    The processes that share the work make it, and `finish`, at the same time.

    Args:
        folder: where the files are; None: everything stays in memory.
        ids: of all images, in order.
    """

    def __init__(self, folder: Path | None, ids: list[int]) -> None:
        self.verdicts: dict[int, SmoothedVerdict] = {}
        self._folder, self._ids = folder, ids
        self._lines: IO[str] | None = None
        if folder is None:
            return
        rank = distributed.rank()
        with files.writing(folder):
            if rank == 0:
                self._merge(folder)
            self.verdicts = distributed.share(self.verdicts)
            self._lines = _path(folder, rank).open("a")
            if rank > 0:
                self._write(FORMAT)

    def add(self, verdict: SmoothedVerdict) -> None:
        """Records a verdict."""
        self.verdicts[verdict.id] = verdict
        if self._lines is not None:
            self._write(verdict.model_dump_json())

    def finish(self) -> tuple[SmoothedVerdict, ...]:
        """The work is over: leaves the plain file, and tells the verdicts of all processes, in order."""
        self._close()
        for verdicts in distributed.gather(self.verdicts):  # by now all have closed their files
            self.verdicts |= verdicts
        if self._folder is not None and distributed.rank() == 0:
            with files.writing(self._folder):
                self._merge(self._folder)
        distributed.gather(None)
        return tuple(self.verdicts[sample] for sample in self._ids)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._lines is not None:
            self._lines.close()

    def _write(self, line: str) -> None:
        assert self._lines is not None
        with files.writing(self._lines.name):
            self._lines.write(line + "\n")
            self._lines.flush()

    def _merge(self, folder: Path) -> None:
        """Brings all files into the plain one; a crash on the way leaves everything that it needs."""
        parts = sorted(folder.glob("smoothed.*.jsonl"))
        for path in (_path(folder, 0), *parts):
            self.verdicts |= {verdict.id: verdict for verdict in _read(path)}
        known = [self.verdicts[sample] for sample in self._ids if sample in self.verdicts]
        content = [FORMAT, *(verdict.model_dump_json() for verdict in known)]
        files.write_text(_path(folder, 0), "\n".join(content) + "\n")  # without a line that a crash cut short
        for path in parts:
            path.unlink()


def _path(folder: Path, rank: int) -> Path:
    """The file of one process."""
    return folder / (f"smoothed.{rank}.jsonl" if rank else "smoothed.jsonl")


def _read(path: Path) -> list[SmoothedVerdict]:
    """The verdicts in a file; a last line that a crash cut short is none."""
    if not path.exists():
        return []
    first, *lines = path.read_text().split("\n")[:-1] or [FORMAT]
    if first != FORMAT:
        raise ConfigError(
            f"{path} was written by another version of advkit; choose another folder with --out"
        )
    return [SmoothedVerdict.model_validate_json(line) for line in lines]
