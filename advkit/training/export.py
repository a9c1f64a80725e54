"""Where a trained classifier is written: its run folder, the requested file, and the model store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.runs import RunFolder
from advkit.models.card import Parent
from advkit.models.checkpoint import save_model
from advkit.models.header import SUFFIXES
from advkit.models.model import Model
from advkit.models.store import Store, refuse_bad_name


def model_file(context: Context) -> Path | None:
    """The file that ``--out`` names, looked at before the work begins; None for a run folder.

    Raises:
        OutputError: the file exists.
        ConfigError: a suffix of model files that advkit does not write.
    """
    path = context.out
    if path is None or path.suffix not in (*SUFFIXES, ".pth", ".ckpt", ".bin"):
        return None
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"cannot save a model as {path}: end its name with .safetensors or .pt")
    files.refuse_to_replace(path, overwrite=context.overwrite)
    return path


def store_name(given: str | None, *parts: str) -> str:
    """The name that the user gave, or one made of ``parts``.

    Raises:
        ConfigError: it cannot be the name of a model.
    """
    name = given or re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-.")
    refuse_bad_name(name)
    return name


def export(model: Model, name: str, run: RunFolder, file: Path | None, *, overwrite: bool) -> list[Path]:
    """Writes the model to its run folder, to ``file`` and to the store; returns the files."""
    written = [save_model(model, run.path / "model.safetensors", overwrite=True)]
    if file is not None:
        written.insert(0, save_model(model, file, overwrite=overwrite))
    Store().add(model, name)
    return written


def export_beside(
    beside: Mapping[str, Model], classifier: Model, name: str, run: RunFolder
) -> dict[str, str]:
    """Writes what was trained beside a classifier to the run folder and to the store.

    Args:
        beside: the models, by what is added to the classifier's name.
        classifier: what they were trained against.
        name: its name in the store.
        run: its run folder.

    Returns:
        Their roles, by their names in the store.
    """
    found: dict[str, str] = {}
    for what, model in beside.items():
        parent = Parent(relation="trained-against", hash=classifier.hash, name=name)
        named = Model(model.network, model.card.model_copy(update={"lineage": (parent,)}))
        save_model(named, run.path / f"{what}.safetensors", overwrite=True)
        Store().add(named, f"{name}-{what}")
        found[f"{name}-{what}"] = named.card.role
    return found


def known_as(digest: str) -> str:
    """A name that the store has for a model, or an empty string."""
    return next((name for name, meant in Store().names().items() if meant == digest), "")
