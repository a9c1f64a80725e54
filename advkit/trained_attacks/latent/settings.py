"""Configuration of inversion; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.names import DataName


class InversionSettings(StrictModel):
    """How latent vectors are looked for."""

    steps: int = Field(300, ge=1)
    """Steps of Adam on each latent vector."""
    restarts: int = Field(4, ge=1)
    """Starts per image, of which the best is kept; of a VAE, the first is where its encoder says."""
    rate: float = Field(0.1, gt=0)
    """First step size; it falls to 0 along half a cosine."""
    batch_size: int = Field(500, ge=1)
    """Starts at work at once."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""


class _Inverted(StrictModel):
    """What is inverted. A base of its own, so that help lists these options first."""

    model: str
    """Generator or VAE: a file, a run folder or a name in the store. A conditional one is asked for the class
    of each image."""
    data: DataName | None = None
    """Images to find latent vectors of (see `advkit ls data`); by default what the model was trained on."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int = Field(20, ge=1)
    """The first so many images."""


class GanInversion(InversionSettings, _Inverted):
    """Find the latent vectors of which a generator makes given images."""
