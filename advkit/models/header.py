"""The header of a model file: its card, which listings read without importing PyTorch or NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors

from advkit import __version__
from advkit.core import files
from advkit.core.config import validate
from advkit.core.errors import ConfigError, ModelError, did_you_mean, listed
from advkit.models.card import SCHEMA, VERSION, ModelCard

CARD = 4_000_000
"""Characters of the longest card."""
LONGEST = 100_000_000
"""Bytes of the longest header that safetensors reads."""
SUFFIXES = (".safetensors", ".pt")


class Header(NamedTuple):
    """What a file says of its weights."""

    card: ModelCard | None = None
    """None where something else wrote it."""
    digest: str | None = None
    """Of the weights as they are read."""
    half: bool = False
    """They were rounded to float16 and are so in the file, and are read as float32."""


def read_card(path: Path) -> ModelCard | None:
    """The card alone; of a ``.safetensors`` file nothing but the header is read."""
    if path.suffix != ".safetensors":
        from advkit.models.checkpoint import read_checkpoint

        return read_checkpoint(path)[0]
    refuse_absent(path)
    try:
        with path.open("rb") as file:
            if (length := int.from_bytes(file.read(8), "little")) > LONGEST:
                raise ValueError(f"a header of {length:,} bytes")
            header = files.parsed(file.read(length))
        facts = dict(header.pop("__metadata__", {}))
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        if 8 + length + max(ends, default=0) != path.stat().st_size:
            raise ValueError("it is cut short")
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise damaged(path, str(error)) from error
    return header_in(facts, path).card


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
    if not path.is_file():
        raise ModelError(f"{path} is no regular file; name a model file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty (0 bytes); take another copy")


def is_safetensors(path: Path) -> bool:
    """Whether a file is to be read as safetensors: by its suffix, else by its first bytes."""
    if path.suffix == ".safetensors" or not path.is_file():
        return path.suffix == ".safetensors"
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras or h5py), which holds no PyTorch weights; save a state_dict"),
    (b"\x93NUMPY", "a NumPy array, not a checkpoint; save model.state_dict() with torch.save"),
    (b"GGUF", "a GGUF file, not a PyTorch checkpoint; take the PyTorch weights"),
    (b"\x1f\x8b", "compressed with gzip; unpack it and name the file inside"),
)


def kind(path: Path) -> str | None:
    """What a file is that is no checkpoint, and what to do; None for what may be one."""
    with path.open("rb") as file:
        head = file.read(300)
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page (HTML), probably an error or a download page; download the file behind it"
    for start, said in _KINDS:
        if head.startswith(start):
            return said
    if head[257:262] == b"ustar" and not files.is_zip(path):
        return "a tar archive; unpack it and name the file inside"
    return _archive(path)


def _archive(path: Path) -> str | None:
    names = files.zip_names(path)
    if not names or any(name.endswith("data.pkl") for name in names):
        return None
    if any(name.endswith(".h5") for name in names):
        return "a Keras file, which holds no PyTorch weights; save a state_dict"
    if all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz), not a checkpoint; save model.state_dict() with torch.save"
    return f"a zip archive ({listed(names)}), not a checkpoint; unpack it and name the file inside"


def damaged(path: Path, detail: str = "") -> ModelError:
    """The error for a file that cannot be read."""
    if path.is_file() and (what := kind(path)) is not None:
        return ModelError(f"{path} is {what}")
    said = f" ({detail})" if detail else ""
    return ModelError(f"{path} is no model file, or is cut short or damaged{said}; take another copy")


def opened(path: Path) -> Any:
    """A ``.safetensors`` file, whose tensors are PyTorch's.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    refuse_absent(path)
    try:
        return safetensors.safe_open(path, framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise damaged(path) from error


def header_in(facts: Mapping[str, str], path: Path) -> Header:
    """What `parse_card` makes of the metadata of a ``.safetensors`` file."""
    if "advkit" not in facts and any(SCHEMA in str(text) for text in facts.values()):
        raise damaged(path, "its card has another name")
    return parse_card(facts.get("advkit"), path)


def parse_card(raw: Any, path: Path) -> Header:
    """The header of ``path``, from JSON or plain values; None for none."""
    if raw is None:
        return Header()
    try:
        if isinstance(raw, str) and len(raw) > CARD:
            raise ValueError(f"it has {len(raw):,} characters, and {CARD:,} are the most")
        values = files.parsed(raw) if isinstance(raw, str) else raw
    except ValueError as error:
        raise damaged(path, f"its card is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise damaged(path, "its card is no JSON object")
    version = values.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ModelError(
            f"{path} has a card of version {version}, this advkit ({__version__}) reads up to {VERSION}; "
            f"upgrade to advkit {values.get('advkit') or 'of a later version'}, which wrote it, or later"
        )
    if version == 1:
        digest = values.pop(files.SEAL, None)
    else:
        try:
            values = files.unsealed(values)
        except ValueError as error:
            raise damaged(path, f"its card: {error}") from error
        digest = values.pop("weights", None)
    half = values.pop("half", False)
    if not isinstance(half, bool):
        raise damaged(path, f"its card says half: {half!r}")
    if len(str(values.get("config"))) > CARD // 60:
        raise damaged(path, "its card has a configuration that no architecture has")
    try:
        return Header(validate(ModelCard, values, f"the card of {path}"), digest, half)
    except ConfigError as error:
        raise ModelError(str(error)) from error
