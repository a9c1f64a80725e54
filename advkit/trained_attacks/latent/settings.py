"""Configuration of inversion; without torch, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.names import DataName


class InversionSettings(StrictModel):
    """Parameters of GAN inversion."""

    steps: int = Field(300, ge=1)
    """Steps of Adam on each latent vector."""
    restarts: int = Field(4, ge=1)
    """Starts per image, of which the best is kept; the first start of a VAE is its encoding."""
    rate: float = Field(0.1, gt=0)
    """First step size; it decreases to 0 along half a cosine."""
    batch_size: int = Field(500, ge=1)
    """Batch size, in starts."""
    seed: int = Field(0, ge=0)
    """Seed of all random numbers."""


class _Inverted(StrictModel):
    """The generator and the images. A separate base, so that help lists these options first."""

    model: str
    """Generator or VAE: a file, a run folder or a name in the store. A conditional one gets the class of
    each image."""
    data: DataName | None = None
    """Images to invert (see `advkit ls data`); by default the training data of the model."""
    split: Literal["test", "train"] = "test"
    """Split of the data."""
    n: int = Field(20, ge=1)
    """Number of images, from the first."""


class GanInversion(InversionSettings, _Inverted):
    """Invert a generator: find the latent vectors of given images (GAN inversion)."""
