"""The record of verdicts, written as they are reached, which survives kill -9: ``certified.jsonl``."""

from __future__ import annotations

from pathlib import Path

from advkit.core.journal import Journal
from advkit.verify.certification.result import CertifiedVerdict


class Record:
    """Verdicts by id, including those of earlier processes; a context manager.

    Args:
        folder: of the file; None: everything stays in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.verdicts: dict[int, CertifiedVerdict] = {}
        self._journal = folder and Journal(folder / "certified.jsonl", "advkit/certified", 1)
        if self._journal:
            known = self._journal.read()
            self._journal.replace(known)  # without an incomplete line after a crash
            for verdict in map(CertifiedVerdict.model_validate_json, known):
                self.verdicts[verdict.id] = verdict

    def add(self, verdict: CertifiedVerdict) -> None:
        """Records a verdict, unless the image has one."""
        if verdict.id in self.verdicts:
            return
        self.verdicts[verdict.id] = verdict
        if self._journal:
            self._journal.add(verdict.model_dump_json())

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal:
            self._journal.close()
