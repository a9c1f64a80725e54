"""Configurations of GAN training and sampling; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.names import (
    DataName,
    DiscriminatorParameters,
    GanLossName,
    GanLossParameters,
    Generative,
    GeneratorParameters,
    RegulariserNames,
    RegulariserParameters,
)
from advkit.training.schedule import Schedule

Augmentation = Literal["brightness", "contrast", "saturation", "shift", "cutout"]

DEFAULT_PAIRS = {"gan": "conv-gan", "vae": "conv-vae"}
"""Architecture that each kind of training takes when none is named."""


class _Networks(StrictModel):
    """What is trained on what. A base of its own, so that help lists these options first."""

    data: DataName = "digits"
    """Data set to train on (see `advkit ls data`)."""
    kind: Literal["gan", "vae"] = "gan"
    """A generator against a discriminator, or a variational autoencoder."""
    arch: Generative = "conv-gan"
    """Architecture of generator and discriminator (see `advkit ls pairs`), or of the vae (conv-vae)."""
    conditional: Literal["no", "projection", "auxiliary"] = "no"
    """Conditions the generator on a class: with a projection discriminator, or with an auxiliary classifier
    (AC-GAN)."""
    steps: int = Field(1000, ge=1)
    """Updates of the generator (of the whole network of a vae)."""
    batch_size: int = Field(64, ge=2)
    """Batch size: so many real images, and as many generated ones."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    precision: Precision = "auto"
    """Precision of the forward and backward passes; weights and updates stay in float32. auto: bfloat16
    where the processor supports it."""
    name: str | None = None
    """Prefix of the names in the model store; by default DATA-PAIR."""
    generator: GeneratorParameters = {}
    """The generator's own parameters, or those of a vae, as --set generator.KEY=VALUE."""
    discriminator: DiscriminatorParameters = {}
    """The discriminator's own parameters, as --set discriminator.KEY=VALUE."""

    @model_validator(mode="before")
    @classmethod
    def _pair_of_the_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and "arch" not in values:
            kind = values.get("kind", "gan")
            return {**values, "arch": DEFAULT_PAIRS.get(kind, DEFAULT_PAIRS["gan"])}
        return values


class _Game(StrictModel):
    """Settings of the losses and regularisers."""

    loss: GanLossName = "least-squares"
    """Loss (see `advkit ls gan-losses`)."""
    parameters: GanLossParameters = {}
    """The loss's own parameters, as --set parameters.KEY=VALUE."""
    regularisers: RegulariserNames | None = None
    """Regularisers of the discriminator (see `advkit ls regularisers`); by default those of the loss."""
    regularisation: RegulariserParameters = {}
    """Their parameters, as --set regularisation.NAME.KEY=VALUE."""
    discriminator_steps: int = Field(1, ge=1)
    """Updates of the discriminator for each one of the generator, each on a new batch."""
    spectral: bool = False
    """Spectral normalisation in the discriminator (Miyato et al. 2018)."""
    packing: int = Field(1, ge=1, le=16)
    """Images that the discriminator is given together, against mode collapse (Lin et al. 2018: 2 to 4)."""
    augment: tuple[Augmentation, ...] = ()
    """Augmentations of all inputs of the discriminator: shift, cutout, brightness, contrast, saturation."""
    augment_probability: float = Field(1.0, ge=0, le=1)
    """Probability of each augmentation."""
    augment_target: float | None = Field(None, gt=-1, lt=1)
    """Adapts that probability (ADA): the target mean sign of the discriminator's outputs on real images
    (Karras et al. 2020: 0.6)."""


class _Updates(StrictModel):
    """Optimisation."""

    rate_generator: float = Field(2e-4, gt=0)
    """Adam's learning rate for the generator."""
    rate_discriminator: float = Field(2e-4, gt=0)
    """Adam's learning rate for the discriminator."""
    schedule: Schedule = "constant"
    """Schedule of both learning rates."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's first moment decay, for both."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's second moment decay, for both."""
    divergence: float = Field(1.0, ge=0)
    """Weight of a vae's KL divergence from the prior, relative to its reconstruction error."""
    divergence_warmup: Fraction = Field(0.1, ge=0, le=1)
    """Share of a vae's training over which that weight grows from 0 (Sonderby et al. 2016): without it, most
    of the latent dimensions collapse to the prior."""
    ema: float = Field(44_000, ge=0)
    """Half-life of the EMA generator, in images; shorter over the first steps."""


class _Watching(StrictModel):
    """Monitoring and checkpoints."""

    sample_every: int = Field(400, ge=1)
    """Steps between grids of samples from fixed latent vectors, with their metrics."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between checkpoints to resume from."""
    keep_by: Literal["fid", "coverage"] = "fid"
    """Metric by which the best EMA generator is kept, in addition to the last one."""
    tensorboard: bool = False
    """Also write metrics and samples for TensorBoard into the run folder."""
    stop_on_collapse: bool = False
    """Stop on mode collapse, instead of only warning."""


_OF_THE_GAN = (*_Game.model_fields, "conditional", "discriminator", "rate_discriminator")
_OF_THE_VAE = ("divergence", "divergence_warmup")


class GanTraining(_Watching, _Updates, _Game, _Networks):
    """Train a generator and a discriminator against each other.

    The defaults draw varied digits of the bundled 8x8 data in about 20 seconds, and train a convolutional
    discriminator, which is a better start for a classifier than the dense one of mlp-gan.
    """

    @model_validator(mode="after")
    def _nothing_idle(self) -> GanTraining:
        """Options of the other kind of training are errors."""
        other, names = ("gan", _OF_THE_GAN) if self.kind == "vae" else ("vae", _OF_THE_VAE)
        if idle := [name for name in names if name in self.model_dump(exclude_defaults=True)]:
            raise ValueError(
                f"{idle[0]!r} is an option of kind {other} only, and this is a {self.kind}; leave it out"
            )
        return self


class Sampling(StrictModel):
    """Draw images from a trained generator: a grid into a .png, or arrays into an .npz (x: 8-bit images,
    y: their classes where they are known, z: their latent vectors)."""

    model: str | None = None
    """Generator: a file, a run folder, a name in the store or advkit:NAME (such as advkit:digits-gan)."""
    gaussian: str | None = None
    """Instead of a generator: a Gaussian for each class, fitted to the pixels of this data set's training
    images (see `advkit ls data`), as a baseline for a generator."""
    n: int = Field(100, ge=1)
    """How many images."""
    seed: int = Field(0, ge=0)
    """Which images: the same seed draws the same ones, for any n."""
    labels: bool = False
    """Write labels, the same number of images of each class: a conditional generator has them, any other
    needs --classifier."""
    classifier: str | None = None
    """Classifier that labels the images: a file, a run folder, a name in the store or advkit:NAME. Only
    images with --confidence are kept, the same number of each class."""
    confidence: float = Field(0.9, ge=0, le=1)
    """Smallest probability of the class that --classifier predicts."""
    columns: int | None = Field(None, ge=1)
    """Images in a row of the grid; by default as many as there are rows."""

    @model_validator(mode="after")
    def _one_source(self) -> Sampling:
        if (self.model is None) == (self.gaussian is None):
            raise ValueError("give either model (a generator) or gaussian (a data set), not both")
        return self

    @property
    def source(self) -> str:
        """Name of the generator, for people."""
        return self.model or f"gaussian-{self.gaussian}"
