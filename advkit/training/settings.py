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
"""How several threat models are combined: the worst example of each image, all losses, or one at random."""


class Fitting(StrictModel):
    """Settings of the training loop, whatever it trains."""

    enough: ClassVar[tuple[int, int]] = (1000, 10)
    """Minimum updates and epochs by default."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the training images; by default as many as make 1,000 updates, and at least 10."""
    batch_size: int = Field(64, ge=1)
    """Batch size."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9."""
    rate: float = Field(4e-3, gt=0)
    """Peak learning rate."""
    schedule: Schedule = "one-cycle"
    """Schedule of the learning rate."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decay of weights, not of biases and normalisation."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of the weights (EMA); 0 for none. The average is tested and kept."""
    shift: int = Field(0, ge=0)
    """Random shift of training images, in pixels."""
    flip: bool = False
    """Random horizontal flips of training images."""
    coarse: int = Field(0, ge=0)
    """Half of the training images are shrunk to so many pixels a side and enlarged again; 0 for none."""
    extra_data: str | None = None
    """More labelled images, of the same shape and classes, such as npz:FILE from `advkit gan-sample`."""
    extra_fraction: Fraction = Field(0.3, gt=0, lt=1)
    """Share of every batch that is drawn from --extra-data; the number of updates stays the same."""
    precision: Precision = "float32"
    """Precision of the forward and backward passes; weights, losses and updates stay in float32. auto:
    bfloat16 where the processor supports it."""
    checks: int = Field(20, ge=1)
    """Number of checks, evenly spread: held-out images are evaluated, metrics and a checkpoint written."""
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
    """Classifier to start from: a file, a run folder, a name in the store or advkit:NAME."""
    data: DataName = "digits"
    """Data set (see `advkit ls data`)."""
    holdout: Fraction = Field(0.1, ge=0, lt=1)
    """Share of the training images, 1,000 at most, held out to choose the best checkpoint; 0 keeps the
    last."""
    patience: int | None = Field(None, ge=1)
    """Checks without improvement after which training stops; best with --schedule constant, since a
    decreasing rate may still help at the end."""
    name: str | None = None
    """Name in the model store; by default DATA-ARCHITECTURE-OBJECTIVE."""
    architecture: ArchitectureParameters = {}
    """The architecture's own parameters, as --set architecture.KEY=VALUE."""


class _Beginning(ForeignModel):
    """The network, and what a given model does not say of itself."""

    arch: Architecture | None = None
    """Architecture to train from scratch (see `advkit ls architectures`), by default lenet for grey and
    resnet18-cifar for colour images; with --model, that of weights without a card."""


class _Hardening(StrictModel):
    """The threat models."""

    objective: ObjectiveName = "pgd"
    """Training objective (see `advkit ls objectives`)."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """Norm of the threat model."""
    eps: Fraction | None = Field(None, gt=0)
    """Size of the threat model, for pixels in [0, 1], such as 0.1 or 8/255. By default the data set's default
    threat model."""
    also: tuple[str, ...] = ()
    """Further threat models to train against at the same time, as NORM:EPS, such as l2:2,l1:10."""
    union: Several = "max"
    """How these are combined: the worst example of each image, the average of all losses, or one at random
    for each batch."""
    parameters: ObjectiveParameters = {}
    """The objective's own parameters, as --set parameters.KEY=VALUE."""


class _Ordinary(StrictModel):
    """What is minimised without an attacker."""

    objective: ObjectiveName = "standard"
    """Training objective without a threat model: standard, augmix or noise (see `advkit ls objectives`)."""
    parameters: ObjectiveParameters = {}
    """The objective's own parameters, as --set parameters.KEY=VALUE."""


class OrdinaryTraining(_Beginning, Fitting, _Ordinary, _Classifier):
    """Train a classifier without an attacker, from scratch or from a trained one.

    The checkpoint with the best clean accuracy on held-out images is kept. Where the data have a default
    threat model, the result also has the accuracy under PGD, to compare with adversarial training.
    """


class AdversarialTraining(_Beginning, Fitting, _Hardening, _Classifier):
    """Train a robust classifier, from scratch or from a trained one."""
