"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from advkit.core.errors import OutputError, readable


@contextmanager
def writing(where: Path | str) -> Iterator[None]:
    """Turns what the disk refuses (full, read-only, not a folder) into one sentence.

    Raises:
        OutputError: instead of the `OSError` raised inside.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space, or choose another place with --out",
            errno.EDQUOT: "the disk quota is used up; free some space, or choose another place with --out",
            errno.EROFS: "the file system is read-only; choose another place with --out",
            errno.EACCES: "permission denied; choose a place you may write to with --out",
            errno.EPERM: "permission denied; choose a place you may write to with --out",
            errno.ENOTDIR: "a part of that path is a file, not a folder; choose another place with --out",
            errno.EISDIR: "that path is a folder; name a file",
            errno.EEXIST: "a file of that name is in the way; choose another place with --out",
            errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
            errno.ENOENT: "the folder does not exist; create it first, or choose another place with --out",
        }
        if error.errno not in reasons:
            raise
        raise OutputError(f"cannot write {where}: {reasons[error.errno]}") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it is flushed to disk and takes its place."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes ``content`` atomically, as UTF-8."""
    write_bytes(path, readable(content).encode())


def json_text(values: Any, *, indent: int | None = None) -> str:
    """JSON of plain values, in which names of files are readable text."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return readable(value)
        if isinstance(value, Mapping):
            return {plain(key): plain(each) for key, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    return json.dumps(plain(values), indent=indent)


class Pieces(NamedTuple):
    """An array too large for memory, piece by piece along its first dimension."""

    shape: tuple[int, ...]
    dtype: str
    parts: Iterable[Any]


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes named arrays, or `Pieces` of them, atomically, as compressed .npz."""
    import numpy as np

    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not isinstance(array, Pieces):
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
                    continue
                facts = {"shape": array.shape, "fortran_order": False, "descr": np.dtype(array.dtype).str}
                np.lib.format.write_array_header_1_0(member, facts)
                for part in array.parts:
                    member.write(np.ascontiguousarray(part, array.dtype).tobytes())


def refuse_to_replace(path: Path, *, overwrite: bool) -> None:
    """Looks at a file to be written before the work begins.

    Raises:
        OutputError: it is a folder, or it exists and may not be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists already; choose another name, or pass --overwrite to replace it",
            code="already-exists",
        )
