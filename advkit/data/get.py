"""Listing and downloading data sets."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import uuid
from pathlib import Path
from typing import NamedTuple, get_args

from advkit.core.errors import DataError, OutputError
from advkit.core.progress import SILENT, Progress
from advkit.data.dataset import DATASETS, Split, data_folder
from advkit.models.card import Shape

SPLITS = get_args(Split)

_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, RuntimeError)
"""What torchvision's downloads fail with when it is not the disk's fault."""


class Available(NamedTuple):
    """One registered data set, and whether it can be used at once."""

    name: str
    summary: str
    shape: Shape
    sizes: tuple[int, int]
    """Images for training and for testing."""
    splits: tuple[str, ...]
    """Those that are here; none where the set has to be fetched first."""
    where: str
    """"bundled", the folder, or how to get it."""


def available(root: Path | str | None = None) -> list[Available]:
    """Every registered data set; nothing is read but the presence of files.

    Args:
        root: folder of the data sets, as in `advkit.load_data`.
    """
    folder = data_folder(root)
    rows = []
    for entry in DATASETS:
        held = entry.facts["files"]
        here = tuple(s for s in SPLITS if held is None or held.present(s, folder))
        fetch = f"missing: advkit data get {entry.name}"
        where = "bundled" if held is None else str(folder) if here else fetch
        shape, sizes = entry.facts["shape"], entry.facts["sizes"]
        rows.append(Available(entry.name, entry.summary, shape, sizes, here, where))
    return rows


def download(name: str, root: Path | str | None = None, progress: Progress = SILENT) -> Path:
    """Fetches a data set through torchvision, whose own bar shows the bytes on the standard error.

    The files are complete and checked before they appear in the folder, so an interrupted download
    leaves nothing behind that looks like a data set.

    Args:
        root: folder of the data sets, as in `advkit.load_data`.

    Returns:
        The folder.

    Raises:
        ConfigError: unknown name.
        DataError: the network failed, or half of the set is there already.
        OutputError: the folder cannot be written.
    """
    folder = data_folder(root)
    held = DATASETS.entry(name).facts["files"]
    if held is None:
        progress.say(f"{name} is bundled; there is nothing to download")
        return folder
    missing = [split for split in SPLITS if not held.place(split, folder).exists()]
    if not missing:
        for split in SPLITS:
            held.read(split, folder)
        progress.say(f"{held.name} is already in {folder}")
        return folder
    tops = {held.place(split, Path()).parts[0] for split in missing}
    for top in sorted(tops):
        if (folder / top).exists():
            raise DataError(f"{folder / top} holds only a part of {held.name}; remove it and fetch it again")
    progress.say(f"downloading {held.name} to {folder}")
    staging = folder / f".{held.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        staging.mkdir(parents=True)
        for split in missing:
            held.open(split, staging, download=True)
        for top in tops:
            (staging / top).replace(folder / top)
    except _NETWORK as error:
        raise DataError(
            f"cannot download {held.name} ({' '.join(str(error).split())}); check the network and try again, "
            f"or copy torchvision's files into {folder}"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write {held.name} into {folder} ({error.strerror or error}); "
            "choose another folder with --data-dir or ADVKIT_DATA"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder
