"""The two files of ``--out``: an image and its array."""

from __future__ import annotations

import shutil
from pathlib import Path

from advkit.core import files
from advkit.core.context import Context

SUFFIXES = (".png", ".npz")


def requested_files(context: Context) -> tuple[Path, ...]:
    """The .png and .npz files of ``--out``, checked before any work; none for a run folder.

    Raises:
        OutputError: one of them exists.
    """
    if context.out is None or context.out.suffix not in SUFFIXES:
        return ()
    found = tuple(context.out.with_suffix(suffix) for suffix in SUFFIXES)
    for path in found:
        files.refuse_to_replace(path, overwrite=context.overwrite)
    return found


def export(folder: Path, stem: str, wanted: tuple[Path, ...]) -> None:
    """Copies ``folder/stem.png`` and ``folder/stem.npz`` to the requested files."""
    for path in wanted:
        with files.atomic(path) as temporary:
            shutil.copyfile(folder / f"{stem}{path.suffix}", temporary)
