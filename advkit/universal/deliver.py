"""The two files that ``--out`` names: a picture, and the same as numbers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from advkit import files
from advkit.data.data import Data
from advkit.errors import ConfigError
from advkit.models.model import Model
from advkit.trade import Context
from advkit.universal.result import PatchResult, PerturbationResult

SUFFIXES = (".png", ".npz")


def files_asked_for(context: Context) -> tuple[Path, ...]:
    """The .png and the .npz of the name that ``--out`` gives, looked at before the work begins; none for a
    run folder.

    Raises:
        OutputError: one of them exists.
    """
    if context.out is None or context.out.suffix not in SUFFIXES:
        return ()
    found = tuple(context.out.with_suffix(suffix) for suffix in SUFFIXES)
    for path in found:
        files.refuse_to_replace(path, overwrite=context.overwrite)
    return found


def refuse_another(
    result: PatchResult | PerturbationResult, models: Sequence[Model], test: Data, folder: Path
) -> None:
    """A finished run must not speak for files that have changed since.

    Raises:
        ConfigError: they have.
    """
    before = [judged.model_hash for judged in result.classifiers]
    if before != [model.hash for model in models] or result.test.fingerprint != test.fingerprint:
        raise ConfigError(
            f"{folder} holds the result of another model or other data of the same name; "
            "choose another folder with --out"
        )


def deliver(folder: Path, stem: str, wanted: tuple[Path, ...]) -> None:
    """Copies ``folder/stem.png`` and ``folder/stem.npz`` to the files that were asked for."""
    for path in wanted:
        with files.atomic(path) as temporary:
            shutil.copyfile(folder / f"{stem}{path.suffix}", temporary)
