"""Configuration of unrestricted adversarial examples; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.names import Architecture
from advkit.models.foreign_settings import ForeignModel


class UnrestrictedSettings(StrictModel):
    """How a generator's images are searched for those that a classifier errs on."""

    search: Literal["gradient", "monte-carlo"] = "gradient"
    """gradient: down the three losses of Song et al. from near a drawn latent vector; monte-carlo: one latent
    vector after another is drawn."""
    passes: int = Field(200, ge=2)
    """Passes of each example through the classifier at most, forward and backward ones alike: a step of
    gradient costs two, a draw of monte-carlo one."""
    rate: float = Field(0.05, gt=0)
    """Step size of gradient (Adam)."""
    radius: float = Field(0.1, gt=0)
    """How far each number of the latent vector may go from where it was drawn before that costs something;
    gradient begins at a random point within it."""
    near: float = Field(10.0, ge=0)
    """Weight of what goes farther, mean of the numbers."""
    keep: float = Field(1.0, ge=0)
    """Weight of the auxiliary classifier's cross-entropy, where one is named."""
    batch_size: int = Field(500, ge=1)
    """Examples at work at once."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""


class _Attacked(StrictModel):
    """Who is attacked with what. A base of its own, so that help lists these options first."""

    model: str
    """Classifier of digits to mislead: a file, a run folder, a name in the store, torchvision:NAME,
    package.module:function."""
    generator: str
    """Conditional generator (`advkit gan-train --conditional ...`) whose images are to mislead it: a file, a
    run folder or a name in the store."""
    auxiliary: str | None = None
    """Who keeps the class while the search goes on: a classifier that is not attacked, or the discriminator
    of a generator trained with --conditional auxiliary. What it calls another class is no find."""
    target: int | str | None = None
    """The class that the classifier is to see, name or number; by default any wrong one will do."""
    n: int = Field(100, ge=1)
    """Examples, of all classes in turn."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Unrestricted(ForeignModel, UnrestrictedSettings, _Attacked):
    """Make adversarial examples from nothing: images that a generator draws of a class and that a classifier
    takes for another.

    No original bounds them, so an independent classifier, the judge, says whether each still shows the class
    that was asked for.
    """
