"""Configuration of ``advkit curve``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from advkit.core.config import Fraction
from advkit.core.names import AttackNames, AttackParameters
from advkit.core.shards import Sharded
from advkit.models.foreign_settings import SubjectFields, SubjectSettings


class _Measuring(SubjectFields):
    """Options that help lists before those of foreign models."""

    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured; by default as in the model's or the data set's threat model."""
    eps: tuple[Annotated[Fraction, Field(gt=0)], ...] = ()
    """Further eps at which to report the robust accuracy, separated by commas, as 2/255,8/255; others can be
    added later without a new attack."""
    attack: AttackNames = ()
    """Minimum-norm attacks, separated by commas (see `advkit ls attacks`); by default one or two that are
    strong in the norm."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.fmn.steps=300."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    batch_size: int | None = Field(None, ge=1)
    """Images in a batch; it changes the result by rounding at most."""


class Curve(Sharded, SubjectSettings, _Measuring):
    """Measure the security curve: robust accuracy as a function of eps.

    Minimum-norm attacks search the nearest adversarial image around each image, without a fixed eps. So one
    run gives the robust accuracy at every eps, the distribution of the minimum norms, and both for each
    class. At a single eps, `advkit attack` gives a tighter bound.
    """

    irrelevant: ClassVar = ("eps", "batch_size")
