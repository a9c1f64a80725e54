"""Configuration of ``advkit curve``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, AttackNames, AttackParameters, DataName
from advkit.models.foreign_settings import ForeignModel


class _Measuring(StrictModel):
    """Model, images and attacks. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to attack (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Use only the first N images."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured; by default as in the model's or the data set's threat model."""
    eps: tuple[Annotated[Fraction, Field(gt=0)], ...] = ()
    """Further eps at which to report the robust accuracy, separated by commas, as 2/255,8/255; others can be
    added later without a new attack."""
    attack: AttackNames = ()
    """Minimum-norm attacks, separated by commas (see `advkit ls attacks`); by default two or three that are
    strong in the norm."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.fmn.steps=300."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    batch_size: int | None = Field(None, ge=1)
    """Images in a batch; it changes the result by rounding at most."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Curve(ForeignModel, _Measuring):
    """Measure the security curve: robust accuracy as a function of eps.

    Minimum-norm attacks search the nearest adversarial image around each image, without a fixed eps. So one
    run gives the robust accuracy at every eps, the distribution of the minimum norms, and both for each
    class. At a single eps, `advkit attack` gives a tighter bound.
    """

    @property
    def identity(self) -> Curve:
        """The part that determines the minimum norms; a resumed run must have the same."""
        return self.model_copy(update={"eps": (), "batch_size": None})
