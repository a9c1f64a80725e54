"""Images in folders, one folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from advkit.core.errors import DataError, listed
from advkit.core.notes import Note
from advkit.data.data import Data
from advkit.data.dataset import Part, by_hash, pick, role
from advkit.data.image_files import SUFFIXES, WHOLE, Fit, ImageFiles

_SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "icon\r"}


def load_folder(path: Path, part: Part | None = None, fit: Fit = WHOLE) -> Data:
    """``PATH/class/file.png``, or the same in folders ``train`` and ``test`` (or ``val``) below ``PATH``.

    The images of a class may lie in folders of their own below it. Classes are numbered in the order of their
    names and images in that of torchvision's ``ImageFolder``. A folder that is not divided is one set; its
    train and test splits, where one asks for them, go by a hash of ``class/file.png``
    (`advkit.data.dataset.held_out`). Files of operating systems and hidden files are passed over. The notes
    count them, and whatever else was left out.

    Returns:
        The split with its files not yet decoded (`ImageFiles`).

    Raises:
        DataError: no such folder, no images, no images in this split, or unreadable or unequal images.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path}; give folder:PATH of a folder that exists")
    splits = _splits(path)
    seen = _Seen()
    notes: list[Note] = []
    split: Part
    if splits:
        split, serving = pick(part, splits, path)
        source = splits[serving]
        tested = "test" if "test" in splits else "val"
        shared = {splits[name] for name in ("train", tested) if name in splits}
        unread = sorted({entry.name for entry in _folders(path)} - {folder.name for folder in shared})
        if serving == "val":
            notes.append(Note("validation-split", f"{source.name} serves as the test split"))
        seen.beside(path)
        if unread:
            counts = [f"{name} ({len(_Seen().walk(path, name)):,} images)" for name in unread]
            notes.append(Note("not-read", f"folders that were not read: {', '.join(counts)}"))
    else:
        source, shared = path, {path}
        if inner := next((folder for folder in sorted(_folders(path)) if len(_splits(folder)) > 1), None):
            raise DataError(f"the splits are in {inner}, which would be a class here; give folder:{inner}")
    classes = sorted({inner.name for folder in shared for inner in _folders(folder)})
    names = [name for label in classes for name in seen.walk(source, label)]
    seen.beside(source)
    if not names:
        raise DataError(
            f"{source} holds no images in class folders; put them there as CLASS/FILE.png "
            f"({', '.join(sorted(SUFFIXES))}){seen.loose and f'; {seen.loose} lie outside'}"
        )
    if not splits:
        rows, split, note = by_hash(names, part, path)
        names = [names[row] for row in rows]
        notes.append(note)
    numbers = {label: number for number, label in enumerate(classes)}
    images = ImageFiles.find(source, tuple(names), fit)
    return Data(
        name=f"folder:{path}",
        split=split,
        images=images,
        labels=torch.tensor([numbers[name.partition("/")[0]] for name in names]),
        class_names=tuple(classes),
        ids=torch.arange(len(names)),
        notes=(*notes, *seen.notes(classes), *images.notes),
    )


@dataclass
class _Seen:
    """Walks through folders and counts what is no image of a class."""

    system: int = 0
    loose: int = 0
    """Images outside the class folders."""
    others: Counter[str] = field(default_factory=Counter)
    """Files that are no images, by their endings."""
    below: set[str] = field(default_factory=set)
    """Folders directly below a class that have images."""
    direct: bool = False
    """Whether a class has images of its own."""

    def walk(self, source: Path, label: str) -> list[str]:
        """``label/.../file`` of all images of one class, in the order of torchvision's ``ImageFolder``."""
        names, entered = [], set()
        for folder, inner, files in os.walk(source / label, followlinks=True):
            place = Path(folder).stat()
            if (place.st_dev, place.st_ino) in entered:  # a link to a folder above
                inner.clear()
                continue
            entered.add((place.st_dev, place.st_ino))
            inner[:] = self.entered(folder, inner)
            below = Path(folder).relative_to(source)
            found = self.sort_out(files)
            names += [(str(below), (below / file).as_posix()) for file in found]
            if found:
                self.direct |= len(below.parts) == 1
                self.below.update(below.parts[1:2])
        return [name for _, name in sorted(names, key=lambda name: (name[0], name[1]))]

    def beside(self, source: Path) -> None:
        """Counts what lies beside the class folders."""
        self.loose += len(self.sort_out(_files(source)))
        self.entered(source, [inner.name for inner in source.iterdir() if inner.is_dir()])

    def entered(self, folder: Path | str, inner: Iterable[str]) -> list[str]:
        """The folders of ``inner`` that may have images; the files in others are counted."""
        kept = []
        for name in inner:
            if _is_system(name):
                self.system += sum(len(files) for _, _, files in os.walk(Path(folder, name)))
            else:
                kept.append(name)
        return kept

    def sort_out(self, files: Iterable[str]) -> list[str]:
        """The images among the files; the rest is counted, and loose images as well."""
        images = []
        for file in files:
            ending = Path(file).suffix.lower()
            if _is_system(file):
                self.system += 1
            elif ending not in SUFFIXES:
                self.others[ending or "without an ending"] += 1
            else:
                images.append(file)
        return images

    def notes(self, classes: list[str]) -> Iterable[Note]:
        """What was seen."""
        if self.loose:
            said = f"left out: {self.loose:,} images outside the class folders"
            yield Note("loose-images", said)
        if self.others:
            kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(self.others.items()))
            yield Note("other-files", f"left out: files that are no images ({kinds})")
        if self.system:
            said = f"left out: {self.system:,} hidden files and files of operating systems"
            yield Note("system-files", said)
        if all(map(str.isdecimal, classes)) and sorted(classes, key=int) != classes:
            order = f"{listed(classes)} are the classes {listed(range(len(classes)))}"
            yield Note("text-order", f"the folders {order}: in text order")
        if len(classes) == 1 and not self.direct and len(self.below) > 1:
            said = f"all images are of one class, {classes[0]!r}; are its folders the classes?"
            yield Note("one-class", f"{said} ({listed(sorted(self.below))})")


def _splits(path: Path) -> dict[str, Path]:
    """The folders of train, test and val by role; empty where the folders are classes.

    Folders are splits if all of them are called so, or if there are a training and a test or validation
    folder; but not if they have images and no folders of their own.

    Raises:
        DataError: two folders mean the same split.
    """
    splits: dict[str, Path] = {}
    inner = _folders(path)
    found = [(which, folder) for folder in inner if (which := role(folder.name))]
    deeper = any(_folders(folder) for _, folder in found)
    if not deeper and any(_Seen().sort_out(_files(folder)) for _, folder in found):
        return {}
    if len(found) < len(inner) and not ("train" in dict(found) and len(dict(found)) > 1):
        return {}
    for which, folder in found:
        if which in splits:
            raise DataError(f"{splits[which]} and {folder} both mean the {which} split; keep one of them")
        splits[which] = folder
    return splits


def _folders(path: Path) -> list[Path]:
    return [inner for inner in path.iterdir() if inner.is_dir() and not _is_system(inner.name)]


def _files(path: Path) -> list[str]:
    return [inner.name for inner in path.iterdir() if inner.is_file()]


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM
