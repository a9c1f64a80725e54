"""The models that ship with advkit, ``advkit:NAME``: which there are, and where; no PyTorch here."""

from __future__ import annotations

from pathlib import Path

from advkit.core.errors import ModelError, did_you_mean

PREFIX = "advkit:"
FOLDER = Path(__file__).parents[1] / "shipped"
SHIPPED = {
    "digits-standard": "train/digits-standard",
    "digits-robust": "train/digits-linf",
    "digits-gan": "gan/digits",
    "mnist-certified": "train/mnist-mtl-ibp",
}
"""Their names without the prefix, and the recipes that made them."""


def shipped(name: str) -> Path:
    """The file of a model, with or without the prefix.

    Raises:
        ModelError: there is none of that name.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in SHIPPED:
        known = ", ".join(PREFIX + each for each in SHIPPED)
        raise ModelError(
            f"no model {PREFIX}{bare} ships with advkit{did_you_mean(bare, SHIPPED)}; these do: {known}",
            code="model-not-found",
        )
    return FOLDER / f"{bare}.safetensors"
