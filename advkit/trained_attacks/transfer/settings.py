"""Configuration of substitutes; without torch, so that help is instant."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, CopyParameters, DataName
from advkit.models.foreign_settings import ForeignModel
from advkit.training.settings import Fitting


class QuerySettings(StrictModel):
    """Parameters of the queries to a black box."""

    queries: int = Field(10000, ge=1)
    """Query limit, in images."""
    answers: Literal["labels", "probabilities"] = "labels"
    """Answers: the predicted class, or the probabilities of all classes."""
    jacobian: int = Field(0, ge=0, le=10)
    """Rounds of Jacobian-based augmentation (Papernot et al. 2017): each doubles the queries, by steps along
    the copy's gradient; the last one reaches --queries."""
    jacobian_step: Fraction = Field(0.1, gt=0, le=1)
    """Size of such a step, for pixels in [0, 1]."""
    generated_fraction: Fraction = Field(0.5, gt=0, le=1)
    """Share of images of --generator among the first queries; 1 needs no real image."""


class _Copying(StrictModel):
    """The original and the copy. A separate base, so that help lists these options first."""

    model: str
    """Classifier to copy by queries: a file, a run folder, a name in the store, advkit:NAME,
    torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Data set (see `advkit ls data`): training images for queries, without their labels, and test images
    for evaluation."""
    generator: str | None = None
    """Generator or VAE of further query images: a file, a run folder or a name in the store."""
    copy_arch: Architecture = "small-cnn"
    """Architecture of the copy (see `advkit ls architectures`)."""
    architecture: CopyParameters = {}
    """The copy's own parameters, as --set architecture.KEY=VALUE."""
    name: str | None = None
    """Name in the model store; by default DATA-ARCHITECTURE-substitute."""


class SubstituteTraining(ForeignModel, Fitting, QuerySettings, _Copying):
    """Train a copy of a classifier from its answers to queries.

    Adversarial examples for the copy may transfer to the original: advkit attack --surrogate.
    """

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, needed in (("jacobian_step", "jacobian"), ("generated_fraction", "generator")):
            if getattr(self, name) != type(self).model_fields[name].default and not getattr(self, needed):
                raise ValueError(f"{name} has no effect without {needed}; leave it out")
        return self
