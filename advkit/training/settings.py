"""Configurations of classifier training; no torch here, so that help is instant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.names import (
    Architecture,
    ArchitectureParameters,
    DataName,
    ObjectiveName,
    ObjectiveParameters,
)
from advkit.models.foreign_settings import ForeignModel
from advkit.training.schedule import Schedule

Several = Literal["max", "average", "random"]
"""How several threat models count: each image's worst example, all losses, or one at random a batch."""


class Fitting(StrictModel):
    """Settings of the training loop, whatever it trains."""

    enough: ClassVar[tuple[int, int]] = (1000, 10)
    """Updates and epochs that a run makes at least when nothing is said."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the training images; by default as many as make 1,000 updates, and at least 10."""
    batch_size: int = Field(64, ge=1)
    """Images an update."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9."""
    rate: float = Field(4e-3, gt=0)
    """Peak learning rate."""
    schedule: Schedule = "one-cycle"
    """Course of the learning rate."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decay of weights, not of biases and normalisation."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the averaged weights, an update; 0 for none. The average is what is tested and kept."""
    shift: int = Field(0, ge=0)
    """Training images are moved by up to so many pixels."""
    flip: bool = False
    """Training images are mirrored half of the time."""
    coarse: int = Field(0, ge=0)
    """Half of the training images are shrunk to so many pixels a side and enlarged again; 0 for none."""
    extra_data: str | None = None
    """More labelled images, of the same shape and classes, such as npz:FILE from `advkit gan-sample`."""
    extra_fraction: Fraction = Field(0.3, gt=0, lt=1)
    """Share of every batch that is drawn from --extra-data; the number of updates stays the same."""
    precision: Precision = "float32"
    """Arithmetic of the network, while weights, losses and updates stay in float32; auto: bfloat16 where the
    processor computes in it."""
    checks: int = Field(20, ge=1)
    """How often, evenly spread, metrics and a state to resume are written, and held-out images tried."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""

    def updates(self, n: int) -> int:
        """Updates that a run on ``n`` images makes."""
        batches = self.batches(n)
        updates, epochs = self.enough
        return batches * (self.epochs or max(epochs, -(-updates // batches)))

    def batches(self, n: int) -> int:
        """Updates that make an epoch of ``n`` images."""
        return -(-n // min(self.batch_size, n))


class _Classifier(StrictModel):
    """What is trained on what. A base of its own, so that help lists these options first."""

    model: str | None = None
    """Classifier to begin with: a file, a run folder or a name in the store."""
    arch: Architecture | None = None
    """Architecture to begin anew with (see `advkit ls architectures`), by default lenet for grey and
    resnet18-cifar for colour images; beside --model, that of weights without a card."""
    data: DataName = "digits"
    """Data set (see `advkit ls data`)."""
    holdout: Fraction = Field(0.1, ge=0, lt=1)
    """Share of the training images, 1,000 at most, kept out to choose the best checkpoint by; 0 keeps the
    last one."""
    patience: int | None = Field(None, ge=1)
    """Checks without a better one after which training stops; it wants --schedule constant, since a rate that
    falls may help at the very end."""
    name: str | None = None
    """Name in the model store; by default DATA-ARCHITECTURE-OBJECTIVE."""
    architecture: ArchitectureParameters = {}
    """The architecture's own parameters, as --set architecture.KEY=VALUE."""


class _Hardening(StrictModel):
    """What it is to be robust against."""

    objective: ObjectiveName = "pgd"
    """What to minimise (see `advkit ls objectives`)."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]; a fraction such as 8/255 is fine. By default the
    default threat model of the data set."""
    also: tuple[str, ...] = ()
    """Further threat models to train against at the same time, as NORM:EPS, such as l2:2,l1:10."""
    union: Several = "max"
    """How these count: each image's worst example, the average of all losses, or one at random for each
    batch."""
    parameters: ObjectiveParameters = {}
    """The objective's own parameters, as --set parameters.KEY=VALUE."""


class OrdinaryTraining(ForeignModel, Fitting, _Classifier):
    """Train a classifier on images as they are, from scratch or from a trained one.

    The checkpoint with the best clean accuracy on held-out images is kept. Where the data have a default
    threat model, the result also says how much accuracy PGD leaves, to compare with adversarial training.
    """


class AdversarialTraining(ForeignModel, Fitting, _Hardening, _Classifier):
    """Train a robust classifier, from scratch or from a trained one."""
