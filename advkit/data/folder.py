"""Images in folders, one folder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from advkit.core.errors import DataError
from advkit.data.data import Data
from advkit.data.dataset import Split
from advkit.data.image_files import ImageFiles

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def load_folder(path: Path, split: Split) -> Data:
    """``PATH/class/file.png``, or ``PATH/train/class/file.png`` and ``PATH/test/class/file.png``.

    Without the folders ``train`` and ``test``, a file belongs to the test split when the SHA-256 of its
    ``class/file.png``, as a big-endian number, is divisible by 5 (about 20 %); so a file stays in its
    split whatever is added. Classes are numbered in the order of their names; names that begin with a
    dot are passed over.

    Returns:
        The split with its files not yet decoded (`ImageFiles`).

    Raises:
        DataError: no such folder, no images, no images in this split, or unreadable or unequal images.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path}; give folder:PATH of a folder that exists")
    halves = (path / "train", path / "test")
    divided = all(half.is_dir() for half in halves)
    folders = halves if divided else (path,)
    classes = sorted({inner.name for folder in folders for inner in folder.iterdir() if _is_class(inner)})
    source = path / split if divided else path
    names = [f"{label}/{file}" for label in classes for file in _images(source / label)]
    if not names:
        raise DataError(
            f"{source} holds no images in class folders; put them there as CLASS/FILE.png "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    if not divided:
        names = [name for name in names if _held_out(name) == (split == "test")]
        if not names:
            raise DataError(
                f"{path} has too few images for a {split} split by hash (80/20); "
                f"add images, or divide them into {halves[0]} and {halves[1]}"
            )
    numbers = {label: number for number, label in enumerate(classes)}
    return Data(
        name=f"folder:{path}",
        split=split,
        images=ImageFiles.find(source, tuple(names)),
        labels=torch.tensor([numbers[name.partition("/")[0]] for name in names]),
        class_names=tuple(classes),
        ids=torch.arange(len(names)),
    )


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _images(folder: Path) -> list[str]:
    if not folder.is_dir():  # a class that only the other split has
        return []
    return sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 5 == 0
