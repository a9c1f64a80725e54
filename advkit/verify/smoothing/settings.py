"""Configuration of ``advkit smooth``; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel


class _Smoothing(StrictModel):
    """What is smoothed and certified how. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to certify (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    sigma: Fraction | None = Field(None, gt=0)
    """Standard deviation of the noise, for pixels in [0, 1]; by default that of the model's training."""
    skip: int = Field(1, ge=1)
    """Take every so-manieth image; papers certify every 20th of MNIST's and CIFAR-10's test images."""
    n: int | None = Field(None, ge=1)
    """Only the first so many of these images."""
    samples: int = Field(100_000, ge=1)
    """Noisy copies of each image by which its radius is certified."""
    selection: int = Field(100, ge=1)
    """Other noisy copies, by which its class is chosen before."""
    alpha: Fraction = Field(0.001, gt=0, lt=1)
    """Probability, for each image, with which its certificate may be wrong."""
    seed: int = Field(0, ge=0)
    """The noise follows from it and the images' ids."""
    batch_size: int = Field(1000, ge=1)
    """Noisy copies in a pass; changes the speed, not the result."""
    min_radius: Fraction | None = Field(None, ge=0)
    """Average certified radius to reach; exit code 1 when it is missed."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class SmoothedCertification(ForeignModel, _Smoothing):
    """Smooth a classifier with Gaussian noise, and certify how far each image may move in l2.

    The smoothed classifier answers what the classifier says most often of noisy copies of an image. The votes
    of many copies tell, with probability 1 - alpha, a radius around the image within which that answer stays.
    It works with any network, but one that was not trained on such noise is seldom right under it:
    `adv-train --objective noise`.
    """

    @property
    def identity(self) -> SmoothedCertification:
        """The part that determines the votes: what a resumed run must share."""
        return self.model_copy(update={"min_radius": None, "batch_size": 1000})
