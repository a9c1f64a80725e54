"""The one door to data: `load_data` by name, `as_data` for tensors already at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from advkit.data.data import Data
from advkit.data.dataset import DATASETS, Split, data_folder
from advkit.errors import ConfigError, did_you_mean


def load_data(
    name: str, split: str = "test", limit: int | None = None, root: Path | str | None = None
) -> Data:
    """Images and labels of one split.

    Args:
        name: a registered data set (``advkit ls data``).
        split: ``train`` or ``test``.
        limit: only the first so many images.
        root: folder of the data sets; by default ``$ADVKIT_DATA``, else ``~/.advkit/data``.

    Raises:
        ConfigError: unknown name or split.
        DataError: the set is missing or damaged.
    """
    if split not in get_args(Split):
        near = did_you_mean(split, get_args(Split))
        raise ConfigError(f"there is no split called {split!r}{near}; use train or test")
    entry = DATASETS.entry(name)
    data = entry.thing(cast(Split, split), data_folder(root))
    return replace(data, threat=entry.facts["threat"]).limit(limit)
