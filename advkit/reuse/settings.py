"""Configuration of fine-tuning; no torch here, so that help is instant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import DataName
from advkit.training.settings import Fitting


class _Reuse(StrictModel):
    """The model and the data. A base of its own, so that help lists these options first."""

    model: str
    """Discriminator, or VAE: a file, a run folder or a name in the store."""
    data: DataName = "digits"
    """Labelled data set (see `advkit ls data`)."""
    labels: Literal["all"] | PositiveInt = "all"
    """Number of labels of the training split to use: all, or so many, class-balanced. The choice is fixed and
    written into the result."""
    label_set: int = Field(0, ge=0)
    """Which of the fixed sets of labels, to see how much the result depends on them."""
    mode: Literal["full", "probe"] = "full"
    """full trains everything; probe freezes the reused features."""
    trunk_rate: float = Field(0.1, gt=0)
    """Learning rate of the reused features, as a factor of that of the new last layer."""
    layer_decay: Fraction = Field(1.0, gt=0, le=1)
    """The rate of each layer of the reused features is this times that of the layer above it."""
    scratch: bool = False
    """Also train the same network from scratch, all of it, with as many updates at the same rates, for
    comparison."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """Norm of the threat model, for the robust error."""
    eps: Fraction | None = Field(None, gt=0)
    """Size of the threat model, for the robust error; by default the data set's default threat model."""
    name: str | None = None
    """Name in the model store; by default DATA-ARCHITECTURE-classifier."""


class FineTuning(Fitting, _Reuse):
    """Make a classifier of a GAN's discriminator, or of a VAE's encoder: its features under a new last
    layer."""

    enough: ClassVar[tuple[int, int]] = (600, 5)

    epochs: int | None = Field(None, ge=1)
    """Passes over the labelled images; by default as many as make 600 updates, and at least 5."""
    rate: float = Field(1e-2, gt=0)
    """Peak learning rate of the new last layer; --trunk-rate scales it for the features."""
