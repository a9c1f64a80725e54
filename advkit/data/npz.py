"""Images and labels in a NumPy ``.npz`` file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from advkit.core.errors import DataError, UserError, did_you_mean
from advkit.data.arrays import from_arrays
from advkit.data.data import Data
from advkit.data.dataset import Split

_IMAGES, _LABELS, _NAMES = ("x", "images"), ("y", "labels"), ("class_names", "names")


def load_npz(path: Path, split: Split) -> Data:
    """Reads ``x`` (or ``images``), ``y`` (or ``labels``) and, where it is there, ``class_names``.

    With keys ``x_train``, ``y_train``, ``x_test``, ``y_test`` the file has two splits. Without them it is
    one set, which is returned whole whatever split is asked for, and called split ``all`` in results.
    Images are (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or floats in [0, 1].

    Raises:
        DataError: no such file, not an npz, damaged, pickled objects inside, keys missing, or whatever
            `advkit.data.arrays.from_arrays` finds wrong.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; give npz:PATH of a file that exists")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, no npz; write it with numpy.savez(x=..., y=...)")
            return _read(archive, path, split)
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        if "pickle" in str(error):
            raise DataError(
                f"{path} holds pickled objects, which could run code and are never loaded; "
                "save plain arrays of numbers and strings"
            ) from error
        raise DataError(f"{path} is damaged or no npz file; write it again with numpy.savez") from error


def _read(archive: np.lib.npyio.NpzFile, path: Path, split: Split) -> Data:
    keys = list(archive)
    divided = any(f"{stem}_{part}" in keys for stem in _IMAGES for part in ("train", "test"))
    ending = f"_{split}" if divided else ""
    images = archive[_key([stem + ending for stem in _IMAGES], keys, path)]
    labels = archive[_key([stem + ending for stem in _LABELS], keys, path)]
    names = next((archive[key] for key in _NAMES if key in keys), None)
    return from_arrays(
        _channels_first(images),
        labels,
        name=f"npz:{path}",
        split=split if divided else "all",
        class_names=None if names is None else [str(name) for name in names.tolist()],
    )


def _key(wanted: list[str], keys: Iterable[str], path: Path) -> str:
    for key in wanted:
        if key in keys:
            return key
    near = did_you_mean(wanted[0], keys)
    raise DataError(
        f"{path} has no {wanted[0]!r} (or {wanted[1]!r}) among its keys {', '.join(keys)}{near}; "
        "write it with numpy.savez(x=..., y=...), or x_train, y_train, x_test, y_test"
    )


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    return images
