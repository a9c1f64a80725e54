"""Configurations of patches and universal perturbations; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel


def _parts(value: Any) -> Any:
    """A text as it is typed, ``a,b``, as its parts."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_parts)]
"""Names, or one text of names separated by commas."""


class Subjects(StrictModel):
    """Which classifiers are to be misled, on which images."""

    model: Names = Field(min_length=1)
    """Classifiers to mislead, separated by commas: files, run folders, names in the store, torchvision:NAME,
    package.module:function. With several, one change is to mislead them all."""
    transfer: Names = ()
    """Further classifiers to judge by, which the training does not see."""
    data: DataName | None = None
    """Data set (see `advkit ls data`): its training images to learn on, its test images to judge by."""
    n: int = Field(1000, ge=1)
    """Test images to judge by at most, drawn at random."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class ChangeSettings(StrictModel):
    """How one change is trained on many images."""

    steps: int = Field(300, ge=1)
    """Updates of the change."""
    batch_size: int = Field(64, ge=1)
    """Training images an update."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the earlier gradients that is kept from update to update."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""


class PatchSettings(ChangeSettings):
    """What patch is made, how."""

    target: int | str
    """The class that the classifier is to see: its name or, where no class is called that, its number."""
    form: Literal["circle", "square"] = "circle"
    """Outline of the patch."""
    scale: tuple[Fraction, Fraction] = (0.3, 0.6)
    """Smallest and largest diameter, as a share of the image's shorter side."""
    rotation: float = Field(22.5, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    pixels: int | None = Field(None, ge=1)
    """Pixels of the patch, across and down; by default as many as its largest diameter covers."""
    rate: float = Field(0.05, gt=0, le=1)
    """First step size, for pixels in [0, 1]; it falls to 0."""
    print_pixels: int = Field(600, ge=16, le=10_000)
    """Width of the picture to print, in pixels."""

    @model_validator(mode="after")
    def _fits_the_image(self) -> PatchSettings:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale {low:g},{high:g} must be two shares of the image, the smaller first")
        return self


class PatchTraining(ForeignModel, PatchSettings, Subjects):
    """Make a patch that, printed and laid into any image, makes a classifier see the target class.

    It is trained on places, sizes and rotations drawn at random, and judged on test images that were
    classified correctly without it, beside patches of noise, of plain grey and of the target class itself.
    """


class PerturbationSettings(ChangeSettings):
    """What universal perturbation is made, how."""

    norm: Literal["linf", "l2"] | None = None
    """How the size of the perturbation is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Its largest size, for pixels in [0, 1]; a fraction such as 8/255 is fine."""
    target: int | str | None = None
    """The class that the classifier is to see, name or number; by default any wrong one will do."""
    rate: float = Field(0.1, gt=0, le=1)
    """First step size, as a share of eps; it falls to 0."""
    clip: float = Field(5.0, gt=0)
    """Loss of an image at which it counts as misled, so that the others decide the direction."""


class PerturbationTraining(ForeignModel, PerturbationSettings, Subjects):
    """Make one small perturbation that, added to any image, misleads a classifier.

    It is trained on the training images and judged on test images, beside a random one of the same size.
    Without --norm and --eps, the threat model is that of the model's card, or the customary one of the data.
    """
