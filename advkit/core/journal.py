"""Append-only files of records, which survive kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from advkit.core import files
from advkit.core.errors import ConfigError


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
