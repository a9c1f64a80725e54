"""Configuration of the search in latent space; without torch, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel
from advkit.trained_attacks.latent.settings import InversionSettings


class NaturalSettings(InversionSettings):
    """Parameters of the search around a latent vector."""

    radius: Fraction = Field(1.0, gt=0)
    """Largest distance from the image's own latent vector, in units of the mean distance of a sample from the
    prior's mean."""
    rings: int = Field(20, ge=1)
    """Rings around it, from the innermost outward; the search ends in the first ring with a success."""
    samples: int = Field(50, ge=1)
    """Latent vectors sampled in each ring."""


class _Attacked(StrictModel):
    """The attacked classifier and the generator. A separate base, so that help lists these options first."""

    model: str
    """Classifier of digits to attack: a file, a run folder, a name in the store, torchvision:NAME,
    package.module:function."""
    generator: str
    """Generator or VAE of the adversarial examples: a file, a run folder or a name in the store."""
    data: DataName | None = None
    """Images to start from (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Split of the data."""
    n: int = Field(100, ge=1)
    """Number of images, from the first."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Natural(ForeignModel, NaturalSettings, _Attacked):
    """Search natural adversarial examples: images near a given one in a generator's latent space.

    They are far from the image in pixels, so no budget ensures that they show the same digit: an independent
    classifier, the judge, decides that.
    """
