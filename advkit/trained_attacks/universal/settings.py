"""Configurations of patches and universal perturbations; without torch, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import DataName, Names
from advkit.models.foreign_settings import ForeignModel


class Subjects(StrictModel):
    """The attacked classifiers and the images."""

    model: Names = Field(min_length=1)
    """Classifiers to attack, separated by commas: files, run folders, names in the store, advkit:NAME,
    torchvision:NAME, package.module:function. Several are attacked together, by one change."""
    transfer: Names = ()
    """Further classifiers for evaluation only."""
    data: DataName | None = None
    """Data set (see `advkit ls data`): its training images for training, its test images for evaluation."""
    n: int = Field(1000, ge=1)
    """Test images for evaluation at most, sampled at random."""


class ChangeSettings(StrictModel):
    """Parameters of the training of a universal change."""

    steps: int = Field(300, ge=1)
    """Updates of the change."""
    batch_size: int = Field(64, ge=1)
    """Batch size."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of the gradients."""
    seed: int = Field(0, ge=0)
    """Seed of all random numbers."""


class PatchSettings(ChangeSettings):
    """Parameters of a patch and its training."""

    target: int | str
    """Target class: its name or, where no class has that name, its number."""
    form: Literal["circle", "square"] = "circle"
    """Outline of the patch."""
    scale: tuple[Fraction, Fraction] = (0.3, 0.6)
    """Smallest and largest diameter, as a share of the image's shorter side."""
    rotation: float = Field(22.5, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    pixels: int | None = Field(None, ge=1)
    """Pixels of the patch, across and down; by default those of its largest diameter."""
    rate: float = Field(0.05, gt=0, le=1)
    """First step size, for pixels in [0, 1]; it decreases to 0."""
    print_pixels: int = Field(600, ge=16, le=10_000)
    """Width of the printable image, in pixels."""

    @model_validator(mode="after")
    def _fits_the_image(self) -> PatchSettings:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale {low:g},{high:g} must be two shares of the image, the smaller first")
        return self


class PatchTraining(ForeignModel, PatchSettings, Subjects):
    """Train an adversarial patch: placed in any image, it makes a classifier predict the target class.

    It is trained on random positions, sizes and rotations, and evaluated on correctly classified test images,
    with patches of noise, of plain grey and of the target class itself for comparison.
    """


class PerturbationSettings(ChangeSettings):
    """Parameters of a universal perturbation and its training."""

    norm: Literal["linf", "l2"] | None = None
    """Norm of the perturbation."""
    eps: Fraction | None = Field(None, gt=0)
    """Perturbation budget, for pixels in [0, 1]; accepts fractions such as 8/255."""
    target: int | str | None = None
    """Target class, name or number; by default any wrong one."""
    rate: float = Field(0.1, gt=0, le=1)
    """First step size, as a share of eps; it decreases to 0."""
    clip: float = Field(5.0, gt=0)
    """Loss of an image is clipped here, so that the images not yet misclassified determine the direction."""


class PerturbationTraining(ForeignModel, PerturbationSettings, Subjects):
    """Train one small perturbation that makes a classifier misclassify any image.

    It is trained on the training images and evaluated on test images, with a random one of the same size for
    comparison. Without --norm and --eps, the threat model is that of the model's card, or the default threat
    model of the data set.
    """
