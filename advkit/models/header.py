"""The header of a model file: its card, which listings read without importing PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import safetensors

from advkit import __version__
from advkit.core.config import validate
from advkit.core.errors import ConfigError, ModelError, did_you_mean
from advkit.models.card import VERSION, ModelCard

SUFFIXES = (".safetensors", ".pt")


def read_card(path: Path) -> ModelCard | None:
    """The card alone; of a ``.safetensors`` file nothing but the header is read."""
    if path.suffix != ".safetensors":
        from advkit.models.checkpoint import read_checkpoint

        return read_checkpoint(path)[0]
    with opened(path, "numpy") as file:
        return parse_card((file.metadata() or {}).get("advkit"), path)[0]


def refuse_absent(path: Path) -> None:
    """Raises a `ModelError` where there is no file with content."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name a model file in it")
    if not path.exists():
        siblings = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise ModelError(
            f"there is no model file {path}{did_you_mean(path.name, siblings)}; check its name",
            code="model-not-found",
        )
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty (0 bytes); take another copy")


def damaged(path: Path, detail: str = "") -> ModelError:
    """The error for a file that cannot be read."""
    said = f" ({detail})" if detail else ""
    return ModelError(f"{path} is no model file, or is cut short or damaged{said}; take another copy")


def opened(path: Path, framework: Literal["pt", "numpy"] = "pt") -> Any:
    """A ``.safetensors`` file; only ``pt`` imports PyTorch.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    refuse_absent(path)
    try:
        return safetensors.safe_open(path, framework=framework)
    except (safetensors.SafetensorError, OSError) as error:
        raise damaged(path) from error


def parse_card(raw: Any, path: Path) -> tuple[ModelCard | None, str | None]:
    """The card of ``path`` and the digest of its weights, from JSON or plain values; None for none."""
    if raw is None:
        return None, None
    try:
        values = json.loads(raw) if isinstance(raw, str) else raw
    except json.JSONDecodeError as error:
        raise damaged(path, "its card is no JSON") from error
    if not isinstance(values, dict):
        raise damaged(path, "its card is no JSON object")
    digest = values.pop("sha256", None)
    version = values.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ModelError(
            f"{path} has a card of version {version}, this advkit ({__version__}) reads up to {VERSION}; "
            f"upgrade to advkit {values.get('advkit') or 'of a later version'}, which wrote it, or later"
        )
    try:
        return validate(ModelCard, values, f"the card of {path}"), digest
    except ConfigError as error:
        raise ModelError(str(error)) from error
