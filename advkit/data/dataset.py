"""The registry of data sets, and the folder that they lie in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from advkit.core.registry import Registry
from advkit.core.threat import Threat
from advkit.data.torchvision_files import TorchvisionFiles
from advkit.models.card import Shape

if TYPE_CHECKING:  # listings need neither images nor PyTorch
    from advkit.data.data import Data

Split = Literal["train", "test"]
Loader: TypeAlias = "Callable[[Split, Path], Data]"

DATASETS: Registry[Loader] = Registry("data set", "advkit.data.sets")


def dataset(
    name: str,
    *,
    summary: str,
    shape: Shape,
    sizes: tuple[int, int],
    source: str = "",
    aliases: tuple[str, ...] = (),
    threat: Threat | None = None,
    files: TorchvisionFiles | None = None,
) -> Callable[[Loader], Loader]:
    """Decorator that registers ``load(split, root) -> Data`` under ``name``.

    Args:
        name: what users call it.
        summary: one line for listings.
        shape: (channels, height, width) of its images.
        sizes: number of training and of test images.
        source: who published it.
        aliases: other names for it.
        threat: the default threat model, if there is one.
        files: where torchvision keeps it, for a set that has to be downloaded.
    """
    return DATASETS.register(
        name,
        summary=summary,
        source=source,
        aliases=aliases,
        shape=shape,
        sizes=sizes,
        threat=threat,
        files=files,
    )


def data_folder(root: Path | str | None = None) -> Path:
    """The folder of the data sets: ``root``, else ``$ADVKIT_DATA``, else ``~/.advkit/data``."""
    return Path(root or os.environ.get("ADVKIT_DATA") or "~/.advkit/data").expanduser()
