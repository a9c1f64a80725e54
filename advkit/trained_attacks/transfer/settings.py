"""Configuration of substitutes; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, CopyParameters, DataName
from advkit.models.foreign_settings import ForeignModel
from advkit.training.settings import Fitting


class QuerySettings(StrictModel):
    """What a black box is asked."""

    queries: int = Field(10000, ge=1)
    """Images that the black box is asked about at most; it is never asked about one more."""
    answers: Literal["labels", "probabilities"] = "labels"
    """What it answers: the predicted class alone, or the probabilities of all."""
    jacobian: int = Field(0, ge=0, le=10)
    """Rounds of Jacobian-based augmentation (Papernot et al. 2017): each doubles the queries, by steps along
    the copy's gradient; the last one reaches --queries."""
    jacobian_step: Fraction = Field(0.1, gt=0, le=1)
    """Size of such a step, for pixels in [0, 1]."""
    generated_fraction: Fraction = Field(0.5, gt=0, le=1)
    """Share of the images of --generator among those that are asked about first; 1 needs no real image."""


class _Copying(StrictModel):
    """What is copied to what. A base of its own, so that help lists these options first."""

    model: str
    """Classifier to copy, of which only answers are used: a file, a run folder, a name in the store,
    torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Data set (see `advkit ls data`): training images to ask about, without their labels, and test images to
    judge by."""
    generator: str | None = None
    """Generator or VAE whose images are asked about, too: a file, a run folder or a name in the store."""
    copy_arch: Architecture = "small-cnn"
    """Architecture of the copy (see `advkit ls architectures`)."""
    architecture: CopyParameters = {}
    """The copy's own parameters, as --set architecture.KEY=VALUE."""
    name: str | None = None
    """Name in the model store; by default DATA-ARCHITECTURE-substitute."""
    arch: Architecture | None = None
    """For weights without a card: their architecture."""


class SubstituteTraining(ForeignModel, Fitting, QuerySettings, _Copying):
    """Train a copy of a classifier on nothing but its answers.

    Attacks that search on the copy may mislead the original, too: advkit attack --surrogate.
    """

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, needed in (("jacobian_step", "jacobian"), ("generated_fraction", "generator")):
            if getattr(self, name) != type(self).model_fields[name].default and not getattr(self, needed):
                raise ValueError(f"{name} means nothing without {needed}; leave it out")
        return self
