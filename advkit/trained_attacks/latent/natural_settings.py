"""Configuration of the search in latent space; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel
from advkit.trained_attacks.latent.settings import InversionSettings


class NaturalSettings(InversionSettings):
    """How the neighbourhood of a latent vector is searched."""

    radius: Fraction = Field(1.0, gt=0)
    """Largest distance from the image's own latent vector, as a share of how far a drawn vector is from
    the mean."""
    rings: int = Field(20, ge=1)
    """Rings around it, searched from the innermost outward; the search ends in the first with a success."""
    samples: int = Field(50, ge=1)
    """Latent vectors drawn in each ring."""


class _Attacked(StrictModel):
    """Who is attacked with what. A base of its own, so that help lists these options first."""

    model: str
    """Classifier of digits to mislead: a file, a run folder, a name in the store, torchvision:NAME,
    package.module:function."""
    generator: str
    """Generator or VAE whose images are to mislead it: a file, a run folder or a name in the store."""
    data: DataName | None = None
    """Images to begin at (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int = Field(100, ge=1)
    """The first so many images."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Natural(ForeignModel, NaturalSettings, _Attacked):
    """Look for natural adversarial examples: images near a given one in a generator's latent space.

    They are far from the image in pixels, so no budget says that they show the same digit: an independent
    classifier, the judge, says so or not.
    """
