"""Configuration of ``advkit certify``; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName
from advkit.models.foreign_settings import ForeignModel

Method = Literal["auto", "interval", "linear", "optimised"]
"""How to prove; auto: each of the others in turn, on the images that are not proved yet."""


class _Certifying(StrictModel):
    """What is certified how. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to certify (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Only the first so many images."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured (l0 has no bounds)."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change that the certificate covers, for pixels in [0, 1]; a fraction such as 8/255 is fine."""
    method: Method = "auto"
    """Bounds to prove with, from the cheapest to the tightest: interval, linear, optimised; auto takes each
    in turn, for the images that are not proved yet."""
    batch_size: int = Field(64, ge=1)
    """Images at work at once; changes the speed, not the result."""
    min_certified: Fraction | None = Field(None, ge=0, le=1)
    """Certified accuracy to reach, as a fraction; exit code 1 when it is missed."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class Certification(ForeignModel, _Certifying):
    """Prove on how many images nothing within eps can change a classifier's answer.

    Bounds on all that the network can answer hold against every attack, known or not. So the certified
    accuracy is a lower bound of the robust accuracy, as an attack's is an upper bound; `advkit attack
    --certify` tells both. Networks of linear and convolutional layers, batch norm, ReLU, pooling and sums
    can be certified.
    """

    @property
    def identity(self) -> Certification:
        """The part that determines the verdicts: what a resumed run must share."""
        return self.model_copy(update={"min_certified": None, "batch_size": 64})
