"""Append-only files of records, which survive kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from pydantic import TypeAdapter

from advkit.core import distributed, files
from advkit.core.errors import ConfigError

Key = TypeVar("Key")
Entry = TypeVar("Entry")


class Journal:
    """A file whose first line names its format, and whose others have a fact each.

    Args:
        path: of the file, which the first fact makes where there is none.
        schema: name of the format.
        version: of the format; a file of another one is refused.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self._format = json.dumps({"schema": schema, "version": version})
        self._file: IO[bytes] | None = None

    def read(self) -> list[str]:
        """The facts in the file; a last line that a crash cut short is none.

        Raises:
            ConfigError: the file is of another format.
        """
        if not self.path.exists():
            return []
        whole = self.path.read_bytes().rpartition(b"\n")[0]  # bytes: a crash may cut a character in two
        if not whole:
            return []
        first, *facts = whole.decode().split("\n")
        if first != self._format:
            raise ConfigError(
                f"{self.path} was written by another version of advkit; choose another folder with --out"
            )
        return facts

    def replace(self, facts: Iterable[str]) -> None:
        """Writes the whole file anew."""
        self.close()
        files.write_text(self.path, "".join(f"{line}\n" for line in (self._format, *facts)))

    def add(self, fact: str) -> None:
        """Appends a line, which the fact is to fit in."""
        with files.writing(self.path):
            if self._file is None:
                self._file = self.path.open("ab")
                if self._file.tell() == 0:
                    self._file.write(f"{self._format}\n".encode())
            self._file.write(f"{fact}\n".encode())
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
    depend on the number of processes. The run folder (`RunFolder.begin_with`) refuses another run's record.

    A context manager; all processes create it, `exchange` and `finish` at the same time.

    Args:
        folder: of the files; None: everything stays in memory.
        name: of the files and of their format.
        version: of the format.
        kind: of the entries, a dataclass or pydantic model with an ``id``, and a ``stage`` if ``stages`` are
            given.
        ids: of all images, in order.
        stages: in order.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        version: int,
        kind: type[Entry],
        ids: Sequence[int],
        stages: Sequence[str] = (),
    ) -> None:
        self.entries: dict[Key, Entry] = {}
        """By id, or by (stage, id): those of this process, and those of others up to the last `exchange`."""
        self.rows = {sample: row for row, sample in enumerate(ids)}
        self._stages = {stage: number for number, stage in enumerate(stages)}
        self._folder, self._name, self._version = folder, name, version
        self._lines: TypeAdapter[Entry] = TypeAdapter(kind)
        self._news: list[Entry] = []
        if folder is not None:
            with files.writing(folder):
                if distributed.rank() == 0:
                    self._merge(folder)
                self.entries = distributed.share(self.entries)
            self._journal = self._part(folder, distributed.rank())

    def add(self, entry: Entry) -> None:
        """Records an entry."""
        self._learn(entry)
        self._news.append(entry)
        if self._folder is not None:
            self._journal.add(self._lines.dump_json(entry).decode())

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

    def _learn(self, entry: Any) -> None:
        key: Any = (entry.stage, entry.id) if self._stages else entry.id
        self.entries[key] = entry

    def _order(self, entry: Any) -> tuple[int, int]:
        return self._stages[entry.stage] if self._stages else 0, self.rows[entry.id]

    def _part(self, folder: Path, rank: int) -> Journal:
        """The file of one process."""
        path = folder / (f"{self._name}.{rank}.jsonl" if rank else f"{self._name}.jsonl")
        return Journal(path, f"advkit/{self._name}", self._version)

    def _merge(self, folder: Path) -> None:
        """Merges all files into the plain ones; after a crash it can be repeated."""
        others = [int(path.name.split(".")[-2]) for path in folder.glob(f"{self._name}.*.jsonl")]
        for rank in (0, *others):
            for entry in map(self._lines.validate_json, self._part(folder, rank).read()):
                self._learn(entry)
                self._merge_more(entry, rank)
        ordered = sorted(self.entries.values(), key=self._order)
        self._part(folder, 0).replace(self._lines.dump_json(entry).decode() for entry in ordered)
        for rank in others:
            self._part(folder, rank).path.unlink()

    def _merge_more(self, entry: Entry, rank: int) -> None:
        """What the file of process ``rank`` has beside the line of an entry."""
