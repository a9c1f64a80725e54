"""Where a trained classifier is written: its run folder, the requested file, and the model store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advkit import __version__
from advkit.core import files
from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.runs import RunFolder, now
from advkit.models.card import ModelCard, Parent, Relation
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


def export(model: Model, name: str, run: RunFolder, file: Path | None, *, overwrite: bool) -> dict[str, Any]:
    """Writes the model to its run folder, to ``file`` and to the store; returns a `SavedModel`'s values."""
    written = [save_model(model, run.path / "model.safetensors", overwrite=True)]
    if file is not None:
        written.insert(0, save_model(model, file, overwrite=overwrite))
    Store().add(model, name)
    return {"name": name, "hash": model.hash, "files": tuple(map(str, written))}


def export_beside(
    beside: Mapping[str, Model], classifier: Model, name: str, run: RunFolder
) -> dict[str, str]:
    """Writes what was trained beside a classifier to the run folder and to the store.

    Args:
        beside: the models, by what is added to the classifier's name.
        name: of the classifier in the store.

    Returns:
        Their roles, by their names in the store.
    """
    found: dict[str, str] = {}
    origin = Parent(relation="trained-against", hash=classifier.hash, name=name)
    for what, model in beside.items():
        named = Model(model.network, model.card.model_copy(update={"lineage": (origin,)}))
        save_model(named, run.path / f"{what}.safetensors", overwrite=True)
        Store().add(named, f"{name}-{what}")
        found[f"{name}-{what}"] = named.card.role
    return found


def parent(relation: Relation, model: Model) -> Parent:
    """A line of a card's lineage, with a name that the store has for the model."""
    digest = model.hash
    known = (name for name, meant in Store().names().items() if meant == digest)
    return Parent(relation=relation, hash=digest, name=next(known, ""))


def trained_card(card: ModelCard, command: str, config: StrictModel, step: int, **more: Any) -> ModelCard:
    """A card that also says how and when the model was trained.

    Args:
        card: what is known of the model already.
        step: of the checkpoint that was kept.
    """
    training = {"command": command, **config.model_dump(mode="json"), "step": step}
    facts = {"training": training, "created": now(), "advkit": __version__, **more}
    return card.model_copy(update=facts)
