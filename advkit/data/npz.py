"""Images and labels under keys: NumPy ``.npz`` files, and dictionaries in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from advkit.core import files
from advkit.core.errors import DataError, did_you_mean
from advkit.core.notes import Note
from advkit.data.arrays import from_arrays
from advkit.data.data import Data
from advkit.data.dataset import Part, pick, role

IMAGES = ("x", "images", "image", "img", "imgs", "pixel_values", "data", "inputs", "arr_0")
LABELS = ("y", "labels", "label", "targets", "target", "fine_label", "classes", "arr_1")
_NAMES = ("class_names", "names")


def load_npz(path: Path, part: Part | None = None) -> Data:
    """Reads images, labels and, where they are there, class names, as `from_keys` finds them.

    Raises:
        DataError: no such file, not an npz, damaged, pickled objects inside, keys missing, or whatever
            `advkit.data.arrays.from_arrays` finds wrong.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; give npz:PATH of a file that exists")
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise DataError(f"{path} is a single array, no npz; write it with numpy.savez(x=..., y=...)")
    return from_keys(files.Arrays(path), part, name=f"npz:{path}", where=str(path))


def from_keys(archive: Mapping[str, Any], part: Part | None = None, *, name: str, where: str) -> Data:
    """`Data` of the images (`IMAGES`), labels (`LABELS`) and class names under their usual keys.

    With keys such as ``x_train``, ``y_train``, ``x_test``, ``y_test``, or MedMNIST's ``train_images``, it
    has splits. Without them it is one set, which is returned whole whatever split is asked for, and called
    split ``all`` in results. Small and capital letters are the same.

    Raises:
        DataError: keys are missing, or whatever `advkit.data.arrays.from_arrays` finds wrong.
    """
    keys = {_parsed(key): key for key in reversed([str(key) for key in archive])}
    roles = _roles(archive)
    split, serving = pick(part, roles, where) if roles else ("all", None)
    names = next((archive[key] for key in _NAMES if key in archive), None)
    said = Note("validation-split", "the validation images serve as the test split")
    return from_arrays(
        archive[_key(IMAGES, serving, keys, where)],
        archive[_key(LABELS, serving, keys, where)],
        name=name,
        split=split,
        class_names=None if names is None else [str(name) for name in np.asarray(names).tolist()],
        notes=(said,) if serving == "val" else (),
    )


def is_divided(archive: Iterable[str]) -> bool:
    """Whether its keys are those of several splits."""
    return len(_roles(archive)) > 1


def _roles(archive: Iterable[str]) -> set[str]:
    return {which for which, stem in map(_parsed, map(str, archive)) if which and stem in IMAGES}


def _parsed(key: str) -> tuple[str | None, str]:
    """(split, what), both in lower case: of ``X_test`` and ``test_x`` (test, x)."""
    before, _, after = key.lower().partition("_")
    if which := role(before):
        return which, after
    before, _, after = key.lower().rpartition("_")
    if which := role(after):
        return which, before
    return None, key.lower()


def _key(
    stems: Iterable[str], serving: str | None, keys: Mapping[tuple[str | None, str], str], where: str
) -> str:
    for stem in stems:
        if (serving, stem) in keys:
            return keys[serving, stem]
    wanted = "_".join(filter(None, (next(iter(stems)), serving)))
    near = did_you_mean(wanted, keys.values())
    raise DataError(
        f"{where} has no {wanted!r} among its keys {', '.join(keys.values())}{near}; "
        "call them x and y, or x_train, y_train, x_test, y_test"
    )
