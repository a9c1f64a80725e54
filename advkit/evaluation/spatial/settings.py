"""Configuration of ``advkit spatial``; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel


class _Turning(StrictModel):
    """What is turned how far. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to turn (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Only the first so many images."""
    rotation: float = Field(30.0, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    shift: float | None = Field(None, ge=0)
    """Largest shift each way, in pixels; by default a tenth of the shorter side, rounded."""
    random: int = Field(10, ge=0)
    """Random transformations that every image is tried with; 0 for none."""
    rotations: int = Field(31, ge=1)
    """Rotations of the grid."""
    shifts: int = Field(5, ge=1)
    """Shifts of the grid, across and down alike."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """What fills the gaps: black, the nearest pixel, or the image mirrored."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    batch_size: int = Field(256, ge=1)
    """Images at work at once; changes the speed, not the result."""
    save: str | None = None
    """A .npz file for the turned images, with originals, labels and transformations."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Spatial(ForeignModel, _Turning):
    """Turn and shift the images, and report how much of a classifier's accuracy survives.

    Every image is tried with some random transformations, and with a grid of all of them from the smallest
    to the largest: so its result says how far an image must be turned and shifted until it is misclassified.
    No norm bounds the change; rotation and shift do.
    """

    @property
    def identity(self) -> Spatial:
        """The part that determines the verdicts: what a resumed run must share."""
        return self.model_copy(update={"save": None, "batch_size": 256})
