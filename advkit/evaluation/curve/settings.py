"""Configuration of ``advkit curve``; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, AttackNames, AttackParameters, DataName
from advkit.models.foreign_settings import ForeignModel


class _Measuring(StrictModel):
    """What is attacked with what. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to attack (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Only the first so many images."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured; by default as customary for the model or the data."""
    eps: tuple[Annotated[Fraction, Field(gt=0)], ...] = ()
    """Sizes to tell the robust accuracy at, beside round ones, separated by commas, as 2/255,8/255; asking
    again for others costs no attack."""
    attack: AttackNames = ()
    """Minimum-norm attacks, separated by commas (see `advkit ls attacks`); by default two or three that are
    strong in the norm."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.fmn.steps=300."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    batch_size: int | None = Field(None, ge=1)
    """Images at work at once; changes the speed, not the result."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Curve(ForeignModel, _Measuring):
    """Measure how robust accuracy falls as eps grows, all at once.

    Minimum-norm attacks look for the nearest misclassified image around each image, without a budget. So one
    run gives the robust accuracy at every eps, the distribution of the minimum norms, and both for each
    class. At one eps, `advkit attack` is the stronger judge.
    """

    @property
    def identity(self) -> Curve:
        """The part that determines the minimum norms: what a resumed run must share."""
        return self.model_copy(update={"eps": (), "batch_size": None})
