"""Append-only files of records, which survive kill -9."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from advkit.core import distributed, files
from advkit.core.errors import ConfigError
from advkit.core.progress import SILENT, Progress

Key = TypeVar("Key")
Entry = TypeVar("Entry")

_UNSEALED = re.compile(r'\{"schema": "[^"]*", "version": \d+\}')
"""The first line of a file of advkit 0.2 or earlier."""


class Journal:
    """A file whose first line names its format, and whose others have a fact each; every line has its seal
    (`advkit.core.files`).

    Args:
        path: of the file, which the first fact makes where there is none.
        version: of the format; a file of another one is refused.

    Attributes:
        damaged: lines that were left out of what was `read` last.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path, self.damaged = path, 0
        self._format = json.dumps({"schema": schema, "version": version})
        self._file: IO[bytes] | None = None

    def read(self) -> list[str]:
        """The facts in the file, as they were added, without lines that are damaged; a last line that a crash
        cut short is none.

        Raises:
            ConfigError: the file is of another format.
        """
        self.damaged = 0
        if not os.path.lexists(self.path):
            return []
        whole = files.read(self.path, sys.maxsize, own=True).rpartition(b"\n")[0]
        if not whole:
            return []
        lines = [line.decode(errors="replace") for line in whole.split(b"\n")]
        if lines[0] == self._format:  # advkit 0.2 and earlier
            return [files.unsealed_line(line) or line for line in lines[1:]]
        first, *facts = map(files.unsealed_line, lines)
        if first not in (None, self._format) or (_UNSEALED.fullmatch(lines[0]) and not any(facts)):
            raise ConfigError(
                f"{self.path} was written by another version of advkit; choose another folder with --out"
            )
        kept = [fact for fact in facts if fact is not None]
        self.damaged = len(lines) - len(kept) - (first is not None)
        return kept

    def replace(self, facts: Iterable[str]) -> None:
        """Writes the whole file anew."""
        self.close()
        lines = map(files.sealed_line, (self._format, *facts))
        files.write_text(self.path, "".join(f"{line}\n" for line in lines))

    def add(self, fact: str) -> None:
        """Appends a fact, a JSON object on one line."""
        with files.writing(self.path):
            if self._file is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._file = os.fdopen(files.opened(self.path, flags, own=True), "ab")
                if self._file.tell() == 0:
                    self._file.write(f"{files.sealed_line(self._format)}\n".encode())
            self._file.write(f"{files.sealed_line(fact)}\n".encode())
            self._file.flush()

    def close(self) -> None:
        """The file is at rest; the next fact opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Record(Generic[Key, Entry]):
    """What is found out about each image, written at once, so that a run that was killed goes on from there.

    ``NAME.jsonl`` has a line for each entry. With several processes, process R > 0 writes ``NAME.R.jsonl``.
    When a record is opened, and at the end, all are merged into the plain file, in an order that does not
    depend on the number of processes. Damaged lines are left out: their images are done again. The run
    folder (`RunFolder.begin_with`) refuses another run's record.

    A context manager; all processes create it, `exchange` and `finish` at the same time.

    Args:
        folder: of the files; None: everything stays in memory.
        name: of the files and of their format.
        kind: of the entries, a dataclass or pydantic model with an ``id``, and a ``stage`` if ``stages`` are
            given.
        parts: folders of shards (`advkit.core.shards`), whose finished records `take` takes over.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        version: int,
        kind: type[Entry],
        ids: Sequence[int],
        stages: Sequence[str] = (),
        *,
        parts: Sequence[Path] = (),
        progress: Progress = SILENT,
    ) -> None:
        self.entries: dict[Key, Entry] = {}
        """By id, or by (stage, id): those of this process, and those of others up to the last `exchange`."""
        self.rows = {sample: row for row, sample in enumerate(ids)}
        self._stages = {stage: number for number, stage in enumerate(stages)}
        self._folder, self._name, self._version = folder, name, version
        self._lines: TypeAdapter[Entry] = TypeAdapter(kind)
        self._news: list[Entry] = []
        self._progress = progress
        if folder is not None:
            with files.writing(folder):
                if distributed.rank() == 0:
                    self._merge(folder)
                self.entries = distributed.share(self.entries)
            self._journal = self._part(folder, distributed.rank())
        self._parts = parts
        self._offered: dict[Key, tuple[Entry, Path]] = {}
        for part in parts if distributed.rank() == 0 else ():
            self._offered |= {self._key(entry): (entry, part) for entry in self._read(part, 0)}

    def add(self, entry: Entry) -> None:
        """Records an entry."""
        self._learn(entry)
        self._news.append(entry)
        if self._folder is not None:
            self._journal.add(self._lines.dump_json(entry).decode())

    def take(self, keys: Iterable[Key]) -> None:
        """Takes over what shards have found out of these, as far as it is not known; the rest of what they
        have found out stays out of this record."""
        if not self._parts:
            return
        for key in keys if distributed.rank() == 0 else ():
            if key not in self.entries and key in self._offered:
                self._adopt(*self._offered[key])
        self.exchange()

    def exchange(self) -> None:
        """Shares the entries since the last exchange with the other processes, and receives theirs."""
        for entries in distributed.gather(self._news):
            for entry in entries:
                self._learn(entry)
        self._news = []

    def finish(self) -> None:
        """Shares all entries, and merges all files into the plain one."""
        self.close()
        self.exchange()  # by now all have closed their files
        if self._folder is not None and distributed.rank() == 0:
            with files.writing(self._folder):
                self._merge(self._folder)
        distributed.gather(None)

    def close(self) -> None:
        """The files are at rest."""
        if self._folder is not None:
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _key(self, entry: Any) -> Any:
        return (entry.stage, entry.id) if self._stages else entry.id

    def _learn(self, entry: Any) -> None:
        self.entries[self._key(entry)] = entry

    def _adopt(self, entry: Entry, part: Path) -> None:
        """Records an entry of a shard, with what lies beside it."""
        Record.add(self, entry)

    def _order(self, entry: Any) -> tuple[int, ...]:
        row = self.rows[entry.id]
        return (self._stages[entry.stage], row) if self._stages else (row,)

    def _part(self, folder: Path, rank: int) -> Journal:
        """The file of one process."""
        path = folder / (f"{self._name}.{rank}.jsonl" if rank else f"{self._name}.jsonl")
        return Journal(path, f"advkit/{self._name}", self._version)

    def _merge(self, folder: Path) -> None:
        """Merges all files into the plain ones; after a crash it can be repeated."""
        names = folder.glob(f"{self._name}.*.jsonl")
        others = [int(found[1]) for path in names if (found := re.search(r"\.([1-9]\d{0,5})\.", path.name))]
        for rank in (0, *others):
            for entry in self._read(folder, rank):
                self._learn(entry)
        ordered = sorted(self.entries.values(), key=self._order)
        self._part(folder, 0).replace(self._lines.dump_json(entry).decode() for entry in ordered)
        for rank in others:
            self._part(folder, rank).path.unlink()

    def _read(self, folder: Path, rank: int) -> list[Entry]:
        """The sound entries of a file."""
        journal = self._part(folder, rank)
        read = self._entries(journal.read())
        sound = self._sound([entry for entry in read if entry is not None], folder, rank)
        if damaged := journal.damaged + len(read) - len(sound):
            self._progress.say(
                f"{journal.path}: left out damaged records ({damaged:,}), which are made again"
            )
        return sound

    def _entries(self, facts: Iterable[str]) -> list[Entry | None]:
        """The entries of lines; None where it is none of this record's."""
        entries: list[Entry | None] = []
        for fact in facts:
            try:
                entry = self._lines.validate_json(fact)
                self._order(entry)
            except (ValidationError, KeyError):
                entries.append(None)
            else:
                entries.append(entry)
        return entries

    def _sound(self, entries: list[Entry], folder: Path, rank: int) -> list[Entry]:
        """Those of the entries in a process's file that what lies beside it in its folder agrees with."""
        return entries
