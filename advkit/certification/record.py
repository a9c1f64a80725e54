"""The record of verdicts as they are reached, which survives kill -9.

``certified.jsonl`` has a first line that names the format, then one line per image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from advkit import files
from advkit.certification.result import CertifiedVerdict
from advkit.errors import ConfigError

NAME = "certified.jsonl"
FORMAT = json.dumps({"schema": "advkit/certified", "version": 1})
"""The first line."""


class Record:
    """Verdicts by id, those of earlier processes too; a context manager.

    Args:
        folder: where the file is; None: everything stays in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.verdicts: dict[int, CertifiedVerdict] = {}
        self._lines: IO[str] | None = None
        if folder is None:
            return
        path = folder / NAME
        with files.writing(path):
            for verdict in _read(path):
                self.verdicts[verdict.id] = verdict
            content = [FORMAT, *(verdict.model_dump_json() for verdict in self.verdicts.values())]
            files.write_text(path, "\n".join(content) + "\n")  # without a line that a crash cut short
            self._lines = path.open("a")

    def add(self, verdict: CertifiedVerdict) -> None:
        """Records a verdict, unless there is one."""
        if verdict.id in self.verdicts:
            return
        self.verdicts[verdict.id] = verdict
        if self._lines is not None:
            with files.writing(self._lines.name):
                self._lines.write(verdict.model_dump_json() + "\n")
                self._lines.flush()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()


def _read(path: Path) -> list[CertifiedVerdict]:
    if not path.exists():
        return []
    first, *lines = path.read_text().split("\n")[:-1] or [FORMAT]
    if first != FORMAT:
        raise ConfigError(
            f"{path} was written by another version of advkit; choose another folder with --out"
        )
    return [CertifiedVerdict.model_validate_json(line) for line in lines]
