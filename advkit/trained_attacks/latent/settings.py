"""Configurations of attacks in latent space and GAN inversion; without torch, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import DataName
from advkit.models.foreign_settings import ForeignModel


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
    """Generator or VAE: a file, a run folder, a name in the store or advkit:NAME. A conditional one gets the
    class of each image."""
    data: DataName | None = None
    """Images to invert (see `advkit ls data`); by default the training data of the model."""
    split: Literal["test", "train"] = "test"
    """Split of the data."""
    n: int = Field(20, ge=1)
    """Number of images, from the first."""


class GanInversion(InversionSettings, _Inverted):
    """Invert a generator: find the latent vectors of given images (GAN inversion)."""


class NaturalSettings(InversionSettings):
    """Parameters of the search around a latent vector."""

    radius: Fraction = Field(1.0, gt=0)
    """Largest distance from the image's own latent vector, in units of the mean distance of a sample from the
    prior's mean."""
    rings: int = Field(20, ge=1)
    """Rings around it, from the innermost outward; the search ends in the first ring with a success."""
    samples: int = Field(50, ge=1)
    """Latent vectors sampled in each ring."""


class _Natural(StrictModel):
    """The attacked classifier and the generator. A separate base, so that help lists these options first."""

    model: str
    """Classifier of digits to attack: a file, a run folder, a name in the store, advkit:NAME,
    torchvision:NAME, package.module:function."""
    generator: str
    """Generator or VAE of the adversarial examples: a file, a run folder, a name in the store or
    advkit:NAME."""
    data: DataName | None = None
    """Images to start from (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Split of the data."""
    n: int = Field(100, ge=1)
    """Number of images, from the first."""


class Natural(ForeignModel, NaturalSettings, _Natural):
    """Search natural adversarial examples: images near a given one in a generator's latent space.

    They are far from the image in pixels, so no budget ensures that they show the same digit: an independent
    classifier, the judge, decides that.
    """


class UnrestrictedSettings(StrictModel):
    """Parameters of the search for misclassified images of a generator."""

    search: Literal["gradient", "monte-carlo"] = "gradient"
    """gradient: descent on the three losses of Song et al. from near a sampled latent vector; monte-carlo:
    random latent vectors."""
    passes: int = Field(200, ge=2)
    """Largest number of passes per example, forward and backward: a step of gradient costs two, a sample of
    monte-carlo one."""
    rate: float = Field(0.05, gt=0)
    """Step size of gradient (Adam)."""
    radius: float = Field(0.1, gt=0)
    """Distance of each latent coordinate from its start that is free of penalty; gradient starts at a random
    point within it."""
    near: float = Field(10.0, ge=0)
    """Weight of the penalty beyond it, averaged over coordinates."""
    keep: float = Field(1.0, ge=0)
    """Weight of the auxiliary classifier's cross-entropy, if there is one."""
    batch_size: int = Field(500, ge=1)
    """Batch size, in examples."""
    seed: int = Field(0, ge=0)
    """Seed of all random numbers."""


class _Unrestricted(StrictModel):
    """The attacked classifier and the generator. A separate base, so that help lists these options first."""

    model: str
    """Classifier of digits to attack: a file, a run folder, a name in the store, advkit:NAME,
    torchvision:NAME, package.module:function."""
    generator: str
    """Conditional generator (`advkit gan-train --conditional ...`) of the adversarial examples: a file, a
    run folder or a name in the store."""
    auxiliary: str | None = None
    """Auxiliary classifier that keeps the class during the search: a classifier other than the attacked one,
    or the discriminator of a generator trained with --conditional auxiliary. Examples that it assigns to
    another class do not count."""
    target: int | str | None = None
    """Target class, name or number; by default any wrong one."""
    n: int = Field(100, ge=1)
    """Examples, of all classes in turn."""


class Unrestricted(ForeignModel, UnrestrictedSettings, _Unrestricted):
    """Make unrestricted adversarial examples: generated images of a class that a classifier misclassifies.

    There is no original image, so an independent classifier, the judge, decides whether each example shows
    the requested class.
    """
