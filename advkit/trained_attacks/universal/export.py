"""The two files of ``--out``: an image and its array."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advkit.core import files
from advkit.core.context import Context
from advkit.data.data import Data
from advkit.models.model import Model

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


def run_identity(models: Sequence[Model], trained_on: int, learn: Data, test: Data) -> dict[str, Any]:
    """The inputs of a run, for `RunFolder.open`; it is trained on the first ``trained_on`` models."""
    hashes = [model.hash for model in models]
    return {
        "models": hashes[:trained_on],
        "transfer models": hashes[trained_on:],
        "training images": learn.fingerprint,
        "test images": test.fingerprint,
    }


def export(folder: Path, stem: str, wanted: tuple[Path, ...]) -> None:
    """Copies ``folder/stem.png`` and ``folder/stem.npz`` to the requested files."""
    for path in wanted:
        with files.atomic(path) as temporary:
            shutil.copyfile(folder / f"{stem}{path.suffix}", temporary)
