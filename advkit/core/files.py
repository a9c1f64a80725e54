"""Files that a crash leaves old or new, never half of either, and of which what is read is what was written.

A file is *sealed* by a SHA-256 of its content: JSON objects and lines of them as a last member ``sha256``,
other files behind their last byte. A file without a seal is of advkit 0.2 or earlier, and is read as it is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from advkit.core.errors import DataError, OutputError, UserError, readable

SEAL = "sha256"
_LINE = re.compile(rf',"{SEAL}":"([0-9a-f]{{64}})"\}}')
_TAIL = re.compile(rb"\n" + SEAL.encode() + rb" ([0-9a-f]{64})\n")


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
            errno.EFBIG: "a file must not be so large there; choose another place with --out",
            errno.EROFS: "the file system is read-only; choose another place with --out",
            errno.EACCES: "permission denied; choose a place you may write to with --out",
            errno.EPERM: "permission denied; choose a place you may write to with --out",
            errno.ENOTDIR: "a part of that path is a file, not a folder; choose another place with --out",
            errno.EISDIR: "that path is a folder; name a file",
            errno.EEXIST: "a file of that name is in the way; choose another place with --out",
            errno.ELOOP: "a link of that name is in the way; choose another place with --out",
            errno.ENXIO: "a pipe of that name is in the way; choose another place with --out",
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


def is_stream(path: Path) -> bool:
    """Whether what is written there goes on from what is there: a device, a pipe or an open descriptor, which
    has nothing that could be replaced."""
    return path.exists() and not path.is_dir() and (not path.is_file() or _descriptor(path) is not None)


def _descriptor(path: Path) -> int | None:
    """That of ``/dev/stdout`` and the like. It may lead to a file, whose name is not to be taken from it."""
    if str(path.parent) in ("/dev/fd", "/proc/self/fd") and path.name.isdecimal():
        return int(path.name)
    return {"/dev/stdout": 1, "/dev/stderr": 2}.get(str(path))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` atomically; to a stream as it is, which must keep its place."""
    if is_stream(path):
        with writing(path):
            # opened again, a file would be written from its beginning
            known = _descriptor(path)
            flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
            number = os.open(path, flags) if known is None else os.dup(known)
            with os.fdopen(number, "wb") as file:
                os.set_blocking(number, True)  # it only had not to wait for a reader
                file.write(content)
        return
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


LARGEST = 1 << 28
"""Bytes of a text file that is read as a whole."""


def opened(path: Path, flags: int = os.O_RDONLY, *, own: bool = False) -> int:
    """A descriptor of a regular file; nothing waits for a pipe or a device.

    Args:
        own: the file is one that advkit makes itself, so a link in its place is not followed.

    Raises:
        OSError: it is no regular file, or as `os.open`.
    """
    follow = getattr(os, "O_NOFOLLOW", 0) if own else 0
    number = os.open(path, flags | follow | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EEXIST, "it is no regular file", str(path))
    return number


def read(path: Path, most: int = LARGEST, *, own: bool = False) -> bytes:
    """The content of a regular file.

    Raises:
        ValueError: it has more than ``most`` bytes.
        OSError: it is no regular file, or cannot be read.
    """
    with os.fdopen(opened(path, own=own), "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise ValueError(f"it has {size:,} bytes, and {most:,} are the most")
        return file.read()


def digest(content: bytes) -> str:
    """SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def parsed(text: str | bytes) -> Any:
    """The values of JSON text.

    Raises:
        ValueError: it is no JSON, whatever is wrong with it.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a last member, the seal of the others."""
    plain = parsed(json_text(values))
    return {**plain, SEAL: digest(json.dumps(plain, sort_keys=True).encode())}


def unsealed(values: Any) -> dict[str, Any]:
    """What `sealed` was given; values without a seal as they are.

    Raises:
        ValueError: these are not the values that were sealed, or no JSON object.
    """
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    plain = {key: value for key, value in values.items() if key != SEAL}
    if SEAL in values and sealed(plain)[SEAL] != values[SEAL]:
        raise ValueError("it is not what was written")
    return plain


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON values atomically, sealed."""
    write_text(path, json_text(sealed(values), indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The values in a file of `write_json`.

    Raises:
        DataError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        return unsealed(parsed(read(path, own=True)))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); take another copy, or delete it") from error


def sealed_line(text: str) -> str:
    """A JSON object on one line, with its seal as a last member."""
    return f'{text[:-1]},"{SEAL}":"{digest(text.encode())}"}}'


def unsealed_line(line: str) -> str | None:
    """What `sealed_line` was given; None for a line that has no seal, or not its own."""
    found = _LINE.fullmatch(line, max(len(line) - 77, 0))
    text = f"{line[: found.start()]}}}" if found else ""
    return text if found and digest(text.encode()) == found[1] else None


def write_sealed(path: Path, content: bytes) -> None:
    """Writes bytes atomically, with their seal behind them."""
    write_bytes(path, content + f"\n{SEAL} {digest(content)}\n".encode())


def read_sealed(path: Path) -> bytes:
    """What `write_sealed` was given; of a file without a seal all of it.

    Raises:
        ValueError: these are not the bytes that were sealed.
        OSError: it cannot be read.
    """
    content = read(path, sys.maxsize, own=True)
    found = _TAIL.fullmatch(content, max(len(content) - 73, 0))
    if found is None:
        return content
    if digest(content[: found.start()]).encode() != found[1]:
        raise ValueError("it is not what was written")
    return content[: found.start()]


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


class Arrays(Mapping[str, Any]):
    """The arrays of a .npz file, each read when it is asked for. Its size is checked before memory is taken.

    Raises:
        DataError: it is no .npz file, damaged, or holds pickled objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reading() as archive:
            self._members = {
                name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")
            }
            if len(archive.namelist()) > 10_000:
                raise ValueError(f"it has {len(archive.namelist()):,} members")

    @contextmanager
    def _reading(self) -> Iterator[zipfile.ZipFile]:
        try:
            with os.fdopen(opened(self.path), "rb") as file, zipfile.ZipFile(file) as archive:
                yield archive
        except UserError:
            raise
        except Exception as error:  # a damaged file fails in as many ways as it has bytes
            raise DataError(
                f"{self.path} is damaged or no npz file ({error}); write it again with numpy.savez"
            ) from error

    def __getitem__(self, name: str) -> Any:
        import numpy as np

        member = self._members[name]
        with self._reading() as archive:
            refuse_bomb(archive.getinfo(member))
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                reader = np.lib.format.read_array_header_1_0
                reader = reader if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = reader(file)
                if dtype.hasobject:
                    raise DataError(
                        f"{self.path} holds pickled objects, which could run code and are never loaded; "
                        "save plain arrays of numbers and strings"
                    )
                claimed, there = (
                    math.prod(shape) * dtype.itemsize,
                    archive.getinfo(member).file_size - file.tell(),
                )
                if min(shape, default=0) < 0 or claimed != there:
                    raise ValueError(f"{name} says that it has {claimed:,} bytes, and it has {there:,}")
            with archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def is_zip(path: Path) -> bool:
    """Whether a file ends as zip archives do; it may be damaged all the same."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # up to Python 3.11 for an end that is damaged
        return True


def zip_names(path: Path) -> list[str]:
    """The names in a zip archive; none of another file, or of a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # a damaged file fails in as many ways as it has bytes
        return []


def refuse_bomb(member: zipfile.ZipInfo) -> None:
    """Raises a ValueError for a member of an archive that unpacks to far more than it takes."""
    if member.file_size > 1 << 28 and member.file_size > 100 * member.compress_size:
        raise ValueError(
            f"{member.filename[:100]} takes {member.compress_size:,} bytes, and unpacked {member.file_size:,}"
        )


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
