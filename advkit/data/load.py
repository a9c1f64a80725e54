"""Loading data: `load_data` by name, `as_data` for tensors already at hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from advkit.core.errors import ConfigError, DataError, UserError, did_you_mean
from advkit.core.in_hand import held
from advkit.core.named import is_named, named
from advkit.data.arrays import from_arrays
from advkit.data.data import Data
from advkit.data.dataset import DATASETS, Split, data_folder
from advkit.data.folder import load_folder
from advkit.data.image_files import ImageFiles
from advkit.data.npz import load_npz

MEMORY = 2 * 1024**3
"""Bytes of decoded images up to which a folder is held in memory."""

_FORMS = "NAME (see `advkit ls data`), folder:PATH, npz:PATH or package.module:function"


def load_data(
    name: str,
    split: str = "test",
    limit: int | None = None,
    root: Path | str | None = None,
    *,
    memory: int = MEMORY,
) -> Data:
    """Images and labels of one split.

    Args:
        name: a registered data set (``advkit ls data``), ``folder:PATH`` (`advkit.data.folder`),
            ``npz:PATH`` (`advkit.data.npz`), or ``package.module:function``, a function that is called with
            ``split=...`` and returns `Data` or (images, labels).
        split: ``train`` or ``test``.
        limit: only the first so many images.
        root: folder of the data sets; by default ``$ADVKIT_DATA``, else ``~/.advkit/data``.
        memory: a folder whose decoded images take more bytes is read from disk batch by batch.

    Raises:
        ConfigError: unknown name or split.
        DataError: the set is missing or damaged, or its images or labels are not as they should be.
    """
    if split not in get_args(Split):
        near = did_you_mean(split, get_args(Split))
        raise ConfigError(f"there is no split called {split!r}{near}; use train or test")
    data = _load(name, cast(Split, split), data_folder(root)).limit(limit)
    if isinstance(data.images, ImageFiles) and math.prod(data.images.shape) <= memory:
        return replace(data, images=data.images[:])
    return data


def as_data(x_or_data: Any, y: Any = None, name: str = "tensors") -> Data:
    """`Data` of whatever a caller has at hand.

    Args:
        x_or_data: `Data`, which is returned as it is; a data set's name, for its test split; images
            (N, C, H, W), uint8 or floats in [0, 1], as a tensor or array; or a pair (images, labels).
        y: (N,) integer labels, where ``x_or_data`` is images alone.
        name: what messages and results call it.

    Raises:
        DataError: labels are missing, or images or labels are not as they should be.
    """
    if isinstance(x_or_data, Data):
        return x_or_data
    if y is None:
        if isinstance(x_or_data, str):
            return load_data(x_or_data)
        if not (isinstance(x_or_data, tuple | list) and len(x_or_data) == 2):
            raise DataError(f"{name!r} has no labels; give Data, or a pair (images, labels)")
        x_or_data, y = x_or_data
    return from_arrays(x_or_data, y, name=name, split="all")


def _load(name: str, split: Split, root: Path) -> Data:
    if (splits := held(name)) is not None:
        return cast(Data, splits[split])
    kind, colon, rest = name.partition(":")
    if colon and kind == "folder":
        return load_folder(Path(rest).expanduser(), split)
    if colon and kind == "npz":
        return load_npz(Path(rest).expanduser(), split)
    if is_named(name):
        return _made(name, split)
    if colon:
        near = did_you_mean(kind, ["folder", "npz"])
        raise ConfigError(f"data {name!r} begins with an unknown kind {kind!r}{near}; write {_FORMS}")
    if name not in DATASETS and Path(name).exists():
        kind = "folder" if Path(name).is_dir() else "npz"
        raise ConfigError(f"there is no data set called {name!r}; for the {kind} write {kind}:{name}")
    entry = DATASETS.entry(name)
    return replace(entry.thing(split, root), threat=entry.facts["threat"])


def _made(name: str, split: Split) -> Data:
    function = named(name, DataError, f"write {_FORMS}")
    try:
        made = function(split=split)
    except UserError:
        raise
    except Exception as error:  # the user's own code
        raise DataError(
            f"{name}(split={split!r}) failed ({type(error).__name__}: {error}); fix that function"
        ) from error
    if isinstance(made, Data):
        return made
    if isinstance(made, tuple | list) and len(made) == 2:
        return from_arrays(*made, name=name, split=split)
    raise DataError(f"{name} returned {type(made).__name__}; return advkit's Data or a pair (images, labels)")
