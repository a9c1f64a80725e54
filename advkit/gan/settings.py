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
    """Data set to learn (see `advkit ls data`)."""
    kind: Literal["gan", "vae"] = "gan"
    """A generator against a discriminator, or a variational autoencoder."""
    arch: Generative = "conv-gan"
    """Generator and discriminator pair (see `advkit ls pairs`); for a vae, its architecture (conv-vae)."""
    conditional: Literal["no", "projection", "auxiliary"] = "no"
    """Whether the generator draws the class that is asked for: judged by a projection of the class, or
    by a classifier beside the discriminator."""
    steps: int = Field(1000, ge=1)
    """Updates of the generator (of the whole network of a vae)."""
    batch_size: int = Field(64, ge=2)
    """Real images a step, and as many generated ones."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    precision: Precision = "auto"
    """Arithmetic of the networks, while weights and updates stay in float32; auto: bfloat16 where the
    processor computes in it."""
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
    """Terms that keep the discriminator smooth (see `advkit ls regularisers`); by default those that
    belong to the loss."""
    regularisation: RegulariserParameters = {}
    """Their parameters, as --set regularisation.NAME.KEY=VALUE."""
    discriminator_steps: int = Field(1, ge=1)
    """Updates of the discriminator in a step, each on images of its own."""
    spectral: bool = False
    """Spectral normalisation in the discriminator (Miyato et al. 2018)."""
    packing: int = Field(1, ge=1, le=16)
    """Images that the discriminator judges together, against mode collapse (Lin et al. 2018: 2 to 4)."""
    augment: tuple[Augmentation, ...] = ()
    """What is done to all images that the discriminator sees: shift, cutout, brightness, contrast,
    saturation."""
    augment_probability: float = Field(1.0, ge=0, le=1)
    """How likely each of these is."""
    augment_target: float | None = Field(None, gt=-1, lt=1)
    """Lets that probability follow from how sure the discriminator is of real images: the mean sign of its
    verdicts to aim at (Karras et al. 2020: 0.6)."""


class _Updates(StrictModel):
    """How weights move."""

    rate_generator: float = Field(2e-4, gt=0)
    """Adam's learning rate for the generator."""
    rate_discriminator: float = Field(2e-4, gt=0)
    """Adam's learning rate for the discriminator."""
    schedule: Schedule = "constant"
    """Course of both learning rates."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's first moment decay, for both."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's second moment decay, for both."""
    divergence: float = Field(1.0, ge=0)
    """Weight of a vae's divergence from the prior against its error of reconstruction."""
    divergence_warmup: Fraction = Field(0.1, ge=0, le=1)
    """Share of a vae's training over which that weight grows from 0 (Sonderby et al. 2016): without it, most
    of the latent vector is given up before it has learnt to say anything."""
    ema: float = Field(44_000, ge=0)
    """Half-life of the averaged generator, in images; the average forgets faster over the first steps."""


class _Watching(StrictModel):
    """What is looked at, and when."""

    sample_every: int = Field(400, ge=1)
    """Steps between looks at samples from one fixed noise: a grid, and figures by the judge."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between states to resume from."""
    keep_by: Literal["fid", "coverage"] = "fid"
    """Figure by which the best average of the grids' steps is kept beside the last one."""
    tensorboard: bool = False
    """Write figures and samples for TensorBoard, too, into the run folder."""
    stop_on_collapse: bool = False
    """Stop when the samples have lost their diversity, instead of saying so and going on."""


_OF_THE_GAN = (*_Game.model_fields, "conditional", "discriminator", "rate_discriminator")
_OF_THE_VAE = ("divergence", "divergence_warmup")


class GanTraining(_Watching, _Updates, _Game, _Networks):
    """Train a generator and a discriminator against each other.

    The defaults draw varied digits of the bundled 8x8 data in about 20 seconds, and leave a convolutional
    discriminator, which makes a better classifier than the dense one of mlp-gan.
    """

    @model_validator(mode="after")
    def _nothing_idle(self) -> GanTraining:
        """What has no say in this kind of training was meant for the other one."""
        other, names = ("gan", _OF_THE_GAN) if self.kind == "vae" else ("vae", _OF_THE_VAE)
        if idle := [name for name in names if name in self.model_dump(exclude_defaults=True)]:
            raise ValueError(
                f"{idle[0]!r} counts for kind {other} alone, and this is a {self.kind}; leave it out"
            )
        return self


class Sampling(StrictModel):
    """Draw images from a trained generator: a grid into a .png, or arrays into an .npz (x: 8-bit images,
    y: their classes where they are known, z: their latent vectors)."""

    model: str | None = None
    """Generator: a file, a run folder or a name in the store."""
    gaussian: str | None = None
    """Instead of a generator: a Gaussian for each class, fitted to the pixels of this data set's training
    images (see `advkit ls data`), as a control of what a generator's images are worth."""
    n: int = Field(100, ge=1)
    """How many images."""
    seed: int = Field(0, ge=0)
    """Which images: the same seed draws the same ones, however many are asked for."""
    labels: bool = False
    """Insist on classes, the same number of images of each: a conditional generator always has them, any
    other needs --classifier."""
    classifier: str | None = None
    """Classifier that tells the images' classes: a file, a run folder or a name in the store. Only images
    that it is sure of are kept, the same number of each class."""
    confidence: float = Field(0.9, ge=0, le=1)
    """Least probability of the class that --classifier tells."""
    columns: int | None = Field(None, ge=1)
    """Images in a row of the grid; by default as many as there are rows."""

    @model_validator(mode="after")
    def _one_source(self) -> Sampling:
        if (self.model is None) == (self.gaussian is None):
            raise ValueError("name who is to draw: a generator with model, or data with gaussian, not both")
        return self

    @property
    def source(self) -> str:
        """What draws, for people."""
        return self.model or f"gaussian-{self.gaussian}"
