"""Loading data: `load_data` by name, `as_data` for tensors already at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from advkit.core.errors import ConfigError, DataError, UserError, did_you_mean
from advkit.core.in_hand import held
from advkit.core.modes import own_modes
from advkit.core.named import is_named, named
from advkit.core.notes import Note
from advkit.data.arrays import from_arrays
from advkit.data.data import Data
from advkit.data.dataset import DATASETS, Part, Split, data_folder, pick, role
from advkit.data.folder import load_folder
from advkit.data.given import from_dataset, is_dataset
from advkit.data.image_files import Fit, ImageFiles
from advkit.data.manifest import load_manifest
from advkit.data.npz import from_keys, is_divided, load_npz
from advkit.data.parquet import load_parquet

MEMORY = 2 * 1024**3
"""Bytes of decoded images up to which a folder is held in memory."""

EVALUATED = 256 * 1024**2
"""The same where images are evaluated: each is decoded a few times only, which costs less than its attack."""

_FORMS = (
    "NAME (see `advkit ls data`), folder:PATH, csv:PATH, npz:PATH, parquet:PATH or package.module:function"
)

_FILES: dict[str, Callable[[Path, Part | None, Fit], Data]] = {
    "folder": load_folder,
    "csv": load_manifest,
    "npz": lambda path, part, _: load_npz(path, part),
    "parquet": lambda path, part, _: load_parquet(path, part),
}


@own_modes()
def load_data(
    name: str,
    split: str | None = None,
    limit: int | None = None,
    root: Path | str | None = None,
    *,
    first: bool = False,
    resize: int | Sequence[int] | None = None,
    crop: int | None = None,
    bicubic: bool = False,
    memory: int = MEMORY,
) -> Data:
    """Images and labels of one split.

    Args:
        name: a registered data set (``advkit ls data``), ``folder:PATH`` (`advkit.data.folder`),
            ``csv:PATH`` (`advkit.data.manifest`), ``npz:PATH`` (`advkit.data.npz`), ``parquet:PATH``
            (`advkit.data.parquet`), or ``package.module:function``, a function that is called with
            ``split=...`` and returns `Data` or (images, labels).
        split: ``train``, ``test``, or ``all`` of a set that is not divided; by default ``test`` where there
            is such a split, else ``all``.
        limit: only so many images, as `Data.limit` chooses them.
        root: folder of the data sets; by default ``$ADVKIT_DATA``, else ``~/.advkit/data``.
        first: with ``limit``, the first images, whatever their order.
        resize: for image files, their shorter side, or (height, width).
        crop: for image files, the side of the square that is cut out of the middle, after ``resize``.
        bicubic: resize by bicubic interpolation, else bilinear.
        memory: a folder whose decoded images take more bytes is read from disk batch by batch.

    Raises:
        ConfigError: unknown name or split, or sizes for what has its size already.
        DataError: the set is missing or damaged, or its images or labels are not as they should be.
    """
    if split is not None and split not in get_args(Part):
        near = did_you_mean(split, get_args(Part))
        raise ConfigError(f"there is no split called {split!r}{near}; use train, test or all")
    fit = Fit((resize,) if isinstance(resize, int) else tuple(resize) if resize else None, crop, bicubic)
    if len(fit.resize or ()) > 2 or min(fit.resize or (1,)) < 1 or (crop is not None and crop < 1):
        raise ConfigError(
            "images are resized to one side or (height, width) and cropped to a side, each above 0"
        )
    data = _load(str(name), cast("Part | None", split), data_folder(root), fit).limit(limit, first=first)
    if isinstance(data.images, ImageFiles) and math.prod(data.images.shape) <= memory:
        return replace(data, images=data.images[:])
    return data


def load_splits(name: str, root: Path | str | None = None) -> tuple[Data, Data]:
    """(training, test images), as `load_data` and `same_classes` give them.

    Raises:
        UserError: as in `load_data`.
    """
    splits = (load_data(name, split, root=root).noting_darkness() for split in ("train", "test"))
    train, test = same_classes(*splits)
    return train, test


def same_classes(*parts: Data) -> tuple[Data, ...]:
    """Splits of one set, all with as many classes as its largest label says where they have no names.

    Of a set that is not divided they may be the same images: then the later ones have a note.
    """
    first = parts[0]
    said = Note("no-test-split", f"{first.name} is not divided: its test images are the training images")
    noted = [part.noting(said) if _same_images(first, part) else part for part in parts[1:]]
    parts = (first, *noted)
    if any(part.classes_known for part in parts):
        return parts
    most = max(parts, key=lambda part: part.classes)
    return tuple(replace(part, class_names=most.class_names) for part in parts)


def _same_images(one: Data, other: Data) -> bool:
    return len(one) == len(other) and one.shape == other.shape and one.fingerprint == other.fingerprint


@own_modes()
def as_data(x_or_data: Any, y: Any = None, name: str = "tensors") -> Data:
    """`Data` of whatever a caller has at hand.

    Args:
        x_or_data: `Data`, which is returned as it is; a data set's name, as for `load_data`; images
            (N, C, H, W), uint8 or floats in [0, 1], as a tensor or array; a pair (images, labels); a
            dictionary of both, or of splits, of which the test split is taken; a PyTorch ``Dataset``,
            ``DataLoader`` or ``Subset``, or a Hugging Face data set.
        y: (N,) integer labels, where ``x_or_data`` is images alone.
        name: what messages and results call it.

    Raises:
        DataError: labels are missing, or images or labels are not as they should be.
    """
    if isinstance(x_or_data, Data):
        return x_or_data
    if y is not None:
        return from_arrays(x_or_data, y, name=name, split="all")
    if isinstance(x_or_data, str | Path):
        return load_data(str(x_or_data), memory=EVALUATED)
    if isinstance(x_or_data, Mapping):
        splits = _by_role(x_or_data)
        if not splits:
            return from_keys(x_or_data, name=name, where=repr(name))
        split, serving = pick(None, splits, repr(name))
        return replace(as_data(splits[serving], name=name), split=split)
    if is_dataset(x_or_data):
        return from_dataset(x_or_data, name)
    if isinstance(x_or_data, tuple | list) and len(x_or_data) == 2:
        return from_arrays(*x_or_data, name=name, split="all")
    raise DataError(f"{name!r} has no labels; give Data, a pair (images, labels), or a Dataset of such pairs")


def as_splits(given: Any) -> dict[Split, Data]:
    """Training and test images of whatever `as_data` takes; the same ones where it is not divided.

    Raises:
        DataError: as in `as_data`.
    """
    if isinstance(given, Mapping):
        parts = _by_role(given)
        if "train" in parts and len(parts) > 1:
            _, tested = pick("test", parts, "data")
            train, test = same_classes(
                as_data(parts["train"], name="train"), as_data(parts[tested], name="test")
            )
            return {"train": train, "test": test}
        if not parts and is_divided(given):
            splits: tuple[Split, ...] = ("train", "test")
            both = same_classes(*(from_keys(given, split, name=split, where="data") for split in splits))
            return dict(zip(splits, both, strict=True))
    data = as_data(given)
    return {"train": data, "test": data}


def _by_role(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Its entries that are splits, as train, test and val."""
    return {which: value for key, value in given.items() if (which := role(str(key)))}


def _load(name: str, part: Part | None, root: Path, fit: Fit) -> Data:
    if (splits := held(name)) is not None:
        return cast(Data, splits["train" if part == "train" else "test"])
    kind, colon, rest = name.partition(":")
    if colon and kind in _FILES and (kind in ("folder", "csv") or fit == Fit()):
        return _FILES[kind](Path(rest).expanduser(), part, fit)
    if fit != Fit():
        raise ConfigError(f"{name!r} has images of one size; --resize and --crop are for image files")
    if is_named(name):
        return _made(name, "train" if part == "train" else "test")
    if colon:
        near = did_you_mean(kind, list(_FILES))
        raise ConfigError(f"data {name!r} begins with an unknown kind {kind!r}{near}; write {_FORMS}")
    if name not in DATASETS and Path(name).exists():
        ending = Path(name).suffix.lower()
        kind = "folder" if Path(name).is_dir() else "csv" if ending in (".csv", ".tsv", ".txt") else "npz"
        raise ConfigError(f"there is no data set called {name!r}; for the {kind} write {kind}:{name}")
    if name not in DATASETS and (Path(name).suffix or len(Path(name).parts) > 1):
        raise ConfigError(f"{name!r} is neither a data set nor a file or folder; write {_FORMS}")
    if part == "all":
        raise ConfigError(f"{name!r} has no split 'all'; ask for train or test")
    entry = DATASETS.entry(name)
    return replace(entry.thing(part or "test", root), threat=entry.facts["threat"], shuffled=True)


def _made(name: str, split: Split) -> Data:
    function = named(name, DataError, f"write {_FORMS}")
    try:
        made = function(split=split)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        raise DataError(
            f"{name}(split={split!r}) failed ({type(error).__name__}: {error}); fix that function"
        ) from error
    if isinstance(made, Data):
        return made
    if isinstance(made, tuple | list) and len(made) == 2:
        return from_arrays(*made, name=name, split=split)
    raise DataError(f"{name} returned {type(made).__name__}; return advkit's Data or a pair (images, labels)")
