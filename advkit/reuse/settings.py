"""Configurations of fine-tuning and of training on few labels; no torch here, so that help is instant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import DataName, DiscriminatorParameters, GeneratorParameters, Pair
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


class SemiSupervised(StrictModel):
    """Train a classifier on few labels and many unlabelled images, together with a generator.

    The discriminator of a GAN classifies images and distinguishes real from generated ones. The
    labelled images train the classes; unlabelled and generated images regularise it.
    """

    data: DataName = "digits"
    """Data set (see `advkit ls data`)."""
    labels: PositiveInt = 100
    """Number of labels of the training split to use, class-balanced; all other images are used unlabelled.
    The choice is fixed and written into the result."""
    label_set: int = Field(0, ge=0)
    """Which of the fixed sets of labels, to see how much the result depends on them."""
    model: str | None = None
    """Discriminator to start from: a file, a run folder or a name in the store; by default a new one."""
    arch: Pair | None = None
    """Architecture of generator and discriminator (see `advkit ls pairs`); by default noisy-mlp, or that of
    --model."""
    epochs: int = Field(100, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(100, ge=2)
    """Batch size: as many labelled, unlabelled and generated images each in one step."""
    rate: float = Field(2e-3, gt=0)
    """Adam's learning rate for the classifier; both rates decrease linearly to 0 over the last third."""
    rate_generator: float = Field(1e-3, gt=0)
    """Adam's learning rate for the generator, whose samples lose diversity if it is too large."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's first moment decay, for both."""
    supervised: float = Field(1.0, gt=0)
    """Weight of the labelled images' loss, relative to 1 for all the others."""
    teach: float = Field(0.0, ge=0)
    """Weight of pseudo-labels: confident predictions of the EMA classifier on unlabelled images."""
    sure: float = Field(0.95, gt=0, lt=1)
    """Confidence from which a prediction is a pseudo-label."""
    shift: float = Field(0.0, ge=0)
    """Random shift of training images, in pixels."""
    turn: float = Field(0.0, ge=0, le=180)
    """Random rotation of training images, in degrees."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Random scaling of training images, as a share. Pseudo-labels are predicted without augmentation."""
    ema: float = Field(0.9999, ge=0, lt=1)
    """Decay of the moving average of the weights (EMA), ramped up at the start. The average is kept."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks; weights and updates stay in float32."""
    checkpoint_every: int = Field(500, ge=1)
    """Updates between rows of metrics, and checkpoints to resume from."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """Norm of the threat model, for the robust error."""
    eps: Fraction | None = Field(None, gt=0)
    """Size of the threat model, for the robust error; by default the data set's default threat model."""
    name: str | None = None
    """Name in the model store; by default DATA-PAIR-semi-LABELS."""
    generator: GeneratorParameters = {}
    """The generator's own parameters, as --set generator.KEY=VALUE."""
    discriminator: DiscriminatorParameters = {}
    """The discriminator's own parameters, as --set discriminator.KEY=VALUE."""
