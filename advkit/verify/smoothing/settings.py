"""Configuration of ``advkit smooth``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from advkit.core.config import Fraction
from advkit.core.shards import Sharded
from advkit.models.foreign_settings import SubjectFields, SubjectSettings


class _Smoothing(SubjectFields):
    """Options that help lists before those of foreign models."""

    sigma: Fraction | None = Field(None, gt=0)
    """Standard deviation of the noise, for pixels in [0, 1]; by default that of the model's training."""
    skip: int = Field(1, ge=1)
    """Take every N-th image; papers certify every 20th of MNIST's and CIFAR-10's test images."""
    samples: int = Field(100_000, ge=1)
    """Noisy copies of each image that certify its radius."""
    selection: int = Field(100, ge=1)
    """Other noisy copies, which select its class before."""
    alpha: Fraction = Field(0.001, gt=0, lt=1)
    """Probability, for each image, that its certificate is wrong."""
    seed: int = Field(0, ge=0)
    """The noise follows from it and the images' ids."""
    batch_size: int = Field(1000, ge=1)
    """Noisy copies in a pass; it changes the result by rounding at most."""
    min_radius: Fraction | None = Field(None, ge=0)
    """Required average certified radius; below it, the exit code is 1."""


class SmoothedCertification(Sharded, SubjectSettings, _Smoothing):
    """Certify an l2 radius around each image by randomized smoothing.

    The smoothed classifier returns the most frequent class of a classifier under Gaussian noise. The votes of
    many noisy copies certify, with probability 1 - alpha, a radius around the image within which this class
    does not change. It works with any network, but one that was not trained with such noise is rarely correct
    under it: see `adv-train --objective noise`.
    """

    irrelevant: ClassVar = ("min_radius", "batch_size")
