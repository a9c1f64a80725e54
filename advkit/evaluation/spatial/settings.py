"""Configuration of ``advkit spatial``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from advkit.models.foreign_settings import SubjectFields, SubjectSettings


class _Transforming(SubjectFields):
    """Options that help lists before those of foreign models."""

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


class Spatial(SubjectSettings, _Transforming):
    """Measure robust accuracy under rotations and translations.

    Every image is tried with some random transformations, and with a grid from the smallest to the largest.
    The result says how far an image must be rotated and translated to be misclassified. Limits on rotation
    and translation take the place of a norm.
    """

    irrelevant: ClassVar = ("save", "batch_size")
