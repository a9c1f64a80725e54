"""The record of certificates, written as they are reached, which survives kill -9.

``smoothed.jsonl`` has a line per image. With several processes, process R > 0 writes ``smoothed.R.jsonl``.
When a record is opened, and at the end, all are merged into the plain file, in the order of the data.
"""

from __future__ import annotations

from pathlib import Path

from advkit.core import distributed, files
from advkit.core.journal import Journal
from advkit.verify.smoothing.result import SmoothedVerdict


class Record:
    """Verdicts by id: those of this process, and those of all up to its opening; a context manager.

    All processes create it, and `finish`, at the same time.

    Args:
        folder: of the files; None: everything stays in memory.
        ids: of all images, in order.
    """

    def __init__(self, folder: Path | None, ids: list[int]) -> None:
        self.verdicts: dict[int, SmoothedVerdict] = {}
        self._folder, self._ids = folder, ids
        rank = distributed.rank()
        self._journal = folder and _journal(folder, f"smoothed.{rank}.jsonl" if rank else PLAIN)
        if folder is not None:
            if rank == 0:
                self._merge(folder)
            self.verdicts = distributed.share(self.verdicts)

    def add(self, verdict: SmoothedVerdict) -> None:
        """Records a verdict."""
        self.verdicts[verdict.id] = verdict
        if self._journal:
            self._journal.add(verdict.model_dump_json())

    def finish(self) -> tuple[SmoothedVerdict, ...]:
        """Merges everything into the plain file, and returns the verdicts of all processes, in order."""
        self._close()
        for verdicts in distributed.gather(self.verdicts):  # by now all have closed their files
            self.verdicts |= verdicts
        if self._folder is not None and distributed.rank() == 0:
            self._merge(self._folder)
        distributed.gather(None)
        return tuple(self.verdicts[sample] for sample in self._ids)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._journal:
            self._journal.close()

    def _merge(self, folder: Path) -> None:
        """Merges all files into the plain one; after a crash it can be repeated."""
        parts = sorted(folder.glob("smoothed.*.jsonl"))
        for name in (PLAIN, *(part.name for part in parts)):
            for verdict in map(SmoothedVerdict.model_validate_json, _journal(folder, name).read()):
                self.verdicts[verdict.id] = verdict
        known = [self.verdicts[sample] for sample in self._ids if sample in self.verdicts]
        _journal(folder, PLAIN).replace(verdict.model_dump_json() for verdict in known)
        with files.writing(folder):
            for part in parts:
                part.unlink()


PLAIN = "smoothed.jsonl"


def _journal(folder: Path, name: str) -> Journal:
    return Journal(folder / name, "advkit/smoothed", 1)
