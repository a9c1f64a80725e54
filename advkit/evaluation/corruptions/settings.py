"""Configuration of ``advkit corrupt``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from advkit.core.config import Fraction
from advkit.core.names import CorruptionNames
from advkit.models.foreign_settings import SubjectFields, SubjectSettings

COMMON = (
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "brightness",
    "contrast",
    "jpeg",
    "pixelate",
    "elastic",
    "rotate",
    "scale",
    "translate",
)
"""What is measured by default: those of CIFAR-10-C without weather, and three of MNIST-C."""


def _numbers(value: object) -> object:
    """Severities as one types them: ``1,3,5``."""
    return (
        tuple(value.split(",")) if isinstance(value, str) else (value,) if isinstance(value, int) else value
    )


Severities = Annotated[
    tuple[Annotated[int, Field(ge=1, le=5)], ...], BeforeValidator(_numbers), Field(min_length=1)
]
Constants = Literal["mnist-c", "cifar-10-c", "imagenet-c"] | None


class _Corrupting(SubjectFields):
    """Options that help lists before those of foreign models."""

    corruptions: CorruptionNames = Field(COMMON, min_length=1)
    """Corruptions, separated by commas (see `advkit ls corruptions`)."""
    severities: Severities = (1, 2, 3, 4, 5)
    """Severities from 1 to 5, separated by commas."""
    constants: Constants = None
    """The published set whose constants are used; by default that of images like these."""
    baseline: str | None = None
    """A run of `advkit corrupt`, by number or path, or another classifier, which is then measured: the mean
    corruption error is relative to its errors."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    batch_size: int = Field(500, ge=1)
    """Images in a batch; it changes the result by rounding at most."""
    min_accuracy: Fraction | None = Field(None, ge=0, le=1)
    """Required mean accuracy under the corruptions, as a fraction; below it the exit code is 1."""


class Corruptions(SubjectSettings, _Corrupting):
    """Measure accuracy under common corruptions: noise, blur, digital and geometric ones.

    Every image is classified under each corruption in each severity. Definitions and constants are those of
    MNIST-C, CIFAR-10-C and ImageNet-C. No adversary chooses anything: a model that does well here may still
    be easy to attack.
    """

    irrelevant: ClassVar = ("batch_size", "min_accuracy")
