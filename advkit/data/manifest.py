"""A table of image files and their classes."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from advkit.core import files
from advkit.core.errors import DataError
from advkit.core.notes import Note
from advkit.data.data import Data
from advkit.data.dataset import Part, by_hash, pick, role
from advkit.data.image_files import WHOLE, Fit, ImageFiles

_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
_LABELS = ("label", "class", "target", "y", "class_name", "category", "label_name")
_SPLITS = ("split", "set", "subset", "fold")


def load_manifest(path: Path, part: Part | None = None, fit: Fit = WHOLE) -> Data:
    """A file of lines ``path,label``, divided by commas, semicolons or tabs.

    A first line may name the columns. Paths are relative to the manifest's folder. Labels are numbers from
    0, or names, which are numbered in their order. A column ``split`` divides the images; without it they are
    one set, divided as a folder is where a split is asked for.

    Raises:
        DataError: no such file, no table, files missing, no images in this split, or unreadable or unequal
            images.
    """
    rows, columns = _table(path)
    at, is_of, splits = (next((columns[name] for name in some if name in columns), None)
                         for some in (_PATHS, _LABELS, _SPLITS))  # fmt: skip
    if at is None or is_of is None:
        raise DataError(
            f"{path} names the columns {', '.join(columns)}; call that of the images path and the other label"
        )
    short = next((number for number, row in rows if len(row) < len(columns)), None)
    if short:
        raise DataError(f"{path}, line {short}, has fewer columns than the first line; complete it")
    names = [_found(path.parent, row[at].strip()) for _, row in rows]
    labels, classes = _numbered([row[is_of].strip() for _, row in rows])
    for (number, _), name in zip(rows, names, strict=True):
        if not (path.parent / name).is_file():
            raise DataError(
                f"{path}, line {number}: there is no file {path.parent / name}; "
                "paths are relative to the folder of this file"
            )
    split: Part
    if splits is None:
        chosen, split, note = by_hash(names, part, path)
        notes = [note]
    else:
        roles = [role(row[splits]) for _, row in rows]
        split, serving = pick(part, {which for which in roles if which}, path)
        chosen = [index for index, which in enumerate(roles) if which == serving]
        said = f"{len(chosen):,} of {len(names):,} images: those of the split {serving}"
        notes = [Note("split", said)]
    images = ImageFiles.find(path.parent, tuple(names[index] for index in chosen), fit)
    return Data(
        name=f"csv:{path}",
        split=split,
        images=images,
        labels=torch.tensor([labels[index] for index in chosen]),
        class_names=classes or tuple(map(str, range(max(labels) + 1))),
        classes_known=bool(classes),
        ids=torch.arange(len(chosen)),
        notes=(*notes, *images.notes),
    )


def _found(folder: Path, name: str) -> str:
    """``name`` with slashes, if it was written with backslashes."""
    return name if (folder / name).is_file() else name.replace("\\", "/")


def _table(path: Path) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    """Rows with the numbers of their lines, and the columns by name."""
    if not path.is_file():
        raise DataError(f"there is no file {path}; give csv:PATH of a file that exists")
    try:
        lines = files.read(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no text in UTF-8 ({error}); save it as CSV") from error
    first = next((line for line in lines if line.strip()), "")
    divider = max(",;\t", key=first.count)
    try:
        rows = [
            (number, row) for number, row in enumerate(csv.reader(lines, delimiter=divider), 1) if any(row)
        ]
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}); write lines path,label") from error
    if not rows or len(rows[0][1]) < 2:
        raise DataError(f"{path} has no rows of two columns; write lines path,label")
    header = [cell.strip().lower() for cell in rows[0][1]]
    if any(cell in (*_PATHS, *_LABELS) for cell in header):
        rows, columns = rows[1:], {name: index for index, name in reversed(list(enumerate(header)))}
    else:
        columns = {"path": 0, "label": 1}
    if not rows:
        raise DataError(f"{path} has no rows below its first line; write lines path,label")
    return rows, columns


def _numbered(labels: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Numbers of the classes, and their names where the labels are names."""
    try:
        if all(float(label).is_integer() for label in labels):  # pandas writes 1.0 beside gaps
            return [int(float(label)) for label in labels], ()
    except (ValueError, OverflowError):
        pass
    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[label] for label in labels], tuple(names)
