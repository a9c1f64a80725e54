"""Configuration of ``advkit spatial``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel


class _Transforming(StrictModel):
    """Model, images and transformations. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to transform (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Use only the first N images."""
    rotation: float = Field(30.0, ge=0, le=180)
    """Largest rotation in either direction, in degrees."""
    shift: float | None = Field(None, ge=0)
    """Largest translation in each direction, in pixels; by default a tenth of the shorter side, rounded."""
    random: int = Field(10, ge=0)
    """Random transformations per image; 0 for none."""
    rotations: int = Field(31, ge=1)
    """Number of rotations in the grid."""
    shifts: int = Field(5, ge=1)
    """Number of translations in the grid, in each of the two directions."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """How gaps are filled: with zeros, the nearest pixel, or the reflected image."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    batch_size: int = Field(256, ge=1)
    """Images in a batch; it changes the result by rounding at most."""
    save: str | None = None
    """A .npz file for the transformed images, with originals, labels and transformations."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Spatial(ForeignModel, _Transforming):
    """Measure robust accuracy under rotations and translations.

    Every image is tried with some random transformations, and with a grid from the smallest to the largest.
    The result says how far an image must be rotated and translated to be misclassified. Limits on rotation
    and translation take the place of a norm.
    """

    @property
    def identity(self) -> Spatial:
        """The part that determines the verdicts; a resumed run must have the same."""
        return self.model_copy(update={"save": None, "batch_size": 256})
